"""A worker whose Redis answers late."""

from contextlib import closing

from msgspec.structs import replace

from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from rqscan.settings import RedisSettings
from tests.proxy import SlowLink
from tests.rig import Rig
from tests.servers import RedisServer, wait_for


def test_a_beat_never_gives_back_what_a_claim_on_its_way_has_taken(settings, short_path, tmp_path):
    folder = short_path / "tcp"
    folder.mkdir()
    server = RedisServer(folder, tcp=True).start()
    with closing(server), SlowLink(server.port, 0.1) as link, server.client() as client:
        url = f"redis://127.0.0.1:{link.port}"
        rig = Rig(replace(settings, redis=RedisSettings(url=url)), tmp_path)
        try:
            rig.worker(
                "default", "--concurrency", "2",
                RQSCAN_ALLOW_FUNCTIONS="math.gcd", RQSCAN_WORKER_HEARTBEAT_S="0.02",
            )  # fmt: skip
            queue = ScanQueue("default", connection=client)
            jobs = [queue.enqueue("math.gcd", 4, 6) for _ in range(20)]
            wait_for(lambda: all(job.get_status() == "finished" for job in jobs), 60)
        finally:
            rig.close()
        attempts = {int(client.hget(job.key, "rqscan_attempt")) for job in jobs}
        assert attempts == {1}
        assert not client.hexists(keys.COUNTERS, "rescued")
