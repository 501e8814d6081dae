"""`python scheduler.py` with a recurring scan in rqscan.toml."""

import signal

from rqscan import clock
from rqscan.broker import keys
from tests.servers import wait_for

SCHEDULE = """
[[schedule]]
name = "often"
every_s = 1
queue = "wakaka"
scan = { targets = ["127.0.0.1"], kinds = ["ports"], ports = "1-20" }

[[schedule]]
name = "outside"
every_s = 1
scan = { targets = ["203.0.113.1"], ports = "80" }

[[schedule]]
name = "broken"
cron = "61 * * * *"
scan = { targets = ["127.0.0.1"] }
"""


def test_a_recurring_scan_fires_on_time_each_run_once(rig, redis_server):
    (rig.folder / "rqscan.toml").write_text(SCHEDULE)
    rig.worker("wakaka")
    scheduler = rig.start("scheduler.py", "--log-json")
    second = rig.start("scheduler.py", "--log-json")

    def finished():
        scans = rig.json("scans")
        ended = [scan for scan in scans if scan["state"] == "finished"]
        return ended if len(ended) >= 3 else None

    ended = wait_for(finished, 30, "three runs")
    assert {scan["schedule"] for scan in ended} == {"often"}
    for scan in rig.json("scans"):
        due = clock.from_iso(scan["due_at"])
        assert scan["scan_id"] == f"often-{due:%Y%m%dT%H%M%SZ}"
        assert clock.from_iso(scan["requested_at"]) >= due
    dues = [scan["due_at"] for scan in rig.json("scans")]
    assert len(dues) == len(set(dues))
    with redis_server.client() as client:
        assert client.hget(keys.schedule_entry("outside"), "outcome") == b"refused"
        assert client.hget(keys.schedule_entry("broken"), "state") == b"invalid"
    for started in (scheduler, second):
        started.process.send_signal(signal.SIGTERM)
        assert started.process.wait(10) == 0
    leaders = [started for started in (scheduler, second) if started.of("leader_taken")]
    assert leaders
