"""A worker and a scan over rediss://."""

from msgspec.structs import replace

from rqscan.broker.queues import ScanQueue
from rqscan.settings import RedisSettings
from tests.rig import Rig
from tests.servers import wait_for


def test_a_scan_runs_over_tls_with_a_password(settings, tmp_path, tls_server):
    server = tls_server
    url = server.tls_url.replace("//", "//:s%40cret@")
    rig = Rig(replace(settings, redis=RedisSettings(url=url)), tmp_path)
    try:
        with server.client() as client:
            client.config_set("requirepass", "s@cret")
            job = ScanQueue("default", connection=client).enqueue("math.gcd", 4, 6)
            worker = rig.worker("default", RQSCAN_ALLOW_FUNCTIONS="math.gcd")
            assert wait_for(job.latest_result, 20).return_value == 2  # a horse connects by itself
        assert rig.json("scan", "127.0.0.1", "-p", "1-50")["state"] == "finished"
        refused = rig.run("scans", RQSCAN_REDIS_URL=url.replace("s%40cret", "wrong"))
        assert refused.returncode == 0  # the store alone answers
        refused = rig.run("scan", "127.0.0.1", RQSCAN_REDIS_URL=url.replace("s%40cret", "wrong"))
        assert refused.returncode == 3
        assert "wrong" not in refused.stderr
        assert worker.stop() == 0
        assert "cret" not in worker.log.read_text()
    finally:
        rig.close()
