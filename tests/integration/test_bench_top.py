"""The fleet that bench/top.py fakes: rqscan and RQ's own tools see the same one."""

import json

from rq import Queue, Worker
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry

from bench.top_rig.fake import BEAT_S, CAUSES, FINISHED, Shape, beating, fill
from rqscan.broker import keys
from rqscan.settings import WorkerSettings
from tests.servers import wait_for

SHAPE = Shape(workers=20, hosts=5, queues=4, jobs=1_000, failed=50)
BUSY = 13


def test_everybody_sees_the_same_fleet(rig, redis_server) -> None:
    client = redis_server.client()
    names = fill(client, SHAPE)
    with beating(client, names):
        looks = rig.run("top", "--json", "-n", "2", "-i", "0.5").stdout.splitlines()
        shot = json.loads(looks[-1])
        assert client.pubsub_numsub(keys.commands_of(names[0]))[0][1] == 1
    queues = {one["name"]: one for one in shot["queues"] if one["name"].startswith("scan.")}
    workers = {one["name"]: one for one in shot["workers"]}
    assert (len(workers), len({one["host"] for one in workers.values()})) == (20, 5)
    assert sum(one["state"] == "busy" for one in workers.values()) == BUSY
    assert all(one["state"] in {"busy", "idle"} for one in workers.values()), workers
    assert sum(one["depth"] for one in queues.values()) == SHAPE.jobs
    assert sum(one["failed"] for one in queues.values()) == SHAPE.failed
    assert len({one["error"] for one in shot["failed"]}) == len(CAUSES)

    theirs = {queue.name: queue for queue in Queue.all(connection=client)}
    assert theirs.keys() == queues.keys()
    for name, queue in theirs.items():  # each of these cleans up what it takes for abandoned
        assert queue.count == queues[name]["depth"]
        assert StartedJobRegistry(queue=queue).count == queues[name]["running"]
        assert FailedJobRegistry(queue=queue).count == queues[name]["failed"]
        assert FinishedJobRegistry(queue=queue).count == FINISHED
    for one in Worker.all(connection=client):
        ours = workers[one.name]
        assert ([q.name for q in one.queues], one.hostname) == (ours["queues"], ours["host"])
        assert (one.get_current_job_id(), one.get_state()) == (ours["job"], ours["state"])


def test_the_workers_of_the_fake_live_while_it_runs(redis_server) -> None:
    client = redis_server.client()
    names = fill(client, Shape(workers=4, hosts=2, queues=2, jobs=10, failed=2))
    before = client.zscore(keys.PRESENCE, names[0])
    with beating(client, names):
        wait_for(lambda: client.zscore(keys.PRESENCE, names[0]) > before + BEAT_S)
    assert WorkerSettings().heartbeat_s > BEAT_S
