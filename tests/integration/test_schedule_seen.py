"""What `rqscan top` and `rqscan doctor` tell of a schedule that real schedulers keep."""

import json
import re
from functools import partial

import pytest

from rqscan.monitor.snapshot import Lookout
from tests.servers import wait_for

IDLE = """
[idle]
interfaces = ["lo"]
below_bits_per_s = 10_000_000
"""


def table(name, target="127.0.0.1", **fields) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"name": name, **fields}.items()]
    scan = f'scan = {{ targets = ["{target}"], ports = "80" }}'
    return "\n".join(["[[schedule]]", *lines, scan, "", ""])


@pytest.fixture
def take(redis_server, settings):
    return Lookout(redis_server.client(), settings).look


@pytest.fixture
def start(rig):
    """Start a scheduler with a rqscan.toml of its own."""

    def start(name, text):
        path = rig.folder / f"{name}.toml"
        path.write_text(text)
        return rig.start("scheduler.py", "--log-json", RQSCAN_CONFIG=str(path))

    return start


def entries(shot):
    return {one.name: one for one in shot.schedules}


def causes(shot):
    return {(one.what, one.object): one.cause for one in shot.trouble}


def doctor(rig):
    found = json.loads(rig.run("doctor", "--json").stdout)["checks"]
    return {one["name"]: one for one in found}


def test_two_schedulers_of_different_settings_are_shown_as_such(rig, start, take) -> None:
    first = start("first", table("often", every_s=1, overlap="run"))
    first.wait_for_event("leader_taken")
    wait_for(lambda: [one for one in take().schedules if one.outcome == "fired"], what="a run")
    second = start("second", table("often", every_s=2) + table("more", every_s=3600))
    wait_for(lambda: len(take().schedulers) == 2, what="both schedulers")
    shot = take()
    leader, other = sorted(shot.schedulers, key=lambda one: one.pid != first.process.pid)
    assert (shot.leader, other.pid) == (leader.name, second.process.pid)
    cause = f"has other entries on {other.host} than {leader.name} on {leader.host}, which leads"
    assert causes(shot)["schedulers differ", other.name].startswith(cause)
    done = rig.run("top", "--check")
    assert f"schedulers differ {other.name}: {cause}" in done.stdout
    check = doctor(rig)["scheduler"]
    assert (check["status"], check["value"]) == ("warn", f"{other.name} {cause}")
    assert second.stop() == 0
    wait_for(lambda: ("schedulers differ", other.name) not in causes(take()), what="only one left")
    check = doctor(rig)["scheduler"]
    assert (check["status"], check["value"]) == ("ok", leader.name)


def test_what_runs_wait_for_and_what_became_of_them_is_told_in_words(
    rig, start, take, mariadb
) -> None:
    """No worker is there, so that a run does not end and the fleet is not idle."""
    rig.env["RQSCAN_DATABASE_URL"] = mariadb.database_url()
    text = IDLE + table("calm", every_s=1, when="idle", max_delay_s=720)
    text += table("next", every_s=1, overlap="queue")
    text += table("outside", "203.0.113.1", every_s=1) + table("broken", cron="61 * * * *")
    start("one", text).wait_for_event("leader_taken")
    known = {("run refused", "outside"), ("entry invalid", "broken")}
    wait_for(lambda: known <= causes(take()).keys(), what="what is wrong")
    assert "203.0.113.1" in causes(take())["run refused", "outside"]
    idle = re.compile(
        r"waiting for idle: jobs run or wait in the fleet, \S+ Mbit/s on lo, 10 allowed.*"
        r"; forced in 1[12] min"
    )
    words = {"calm": idle, "next": re.compile("the run before, scan next-.* has not ended")}

    def waiting(name):
        shot = take()
        one = entries(shot)[name]
        is_told = one.state == "waiting" and words[name].fullmatch(one.reason or "")
        return shot if is_told else None

    for name in words:
        shot = wait_for(partial(waiting, name), what=f"{name} to wait")
        assert ("run waits", name) not in causes(shot)
        assert shot.entries.runs
    shown = rig.run("top", "--once").stdout
    assert re.search(r"LEADER \S+  ENTRIES 4  OVERDUE 0  RUNS TO MAKE [1-9]", shown)
    assert doctor(rig)["schedule entry"]["value"].startswith("broken: cron '61 * * * *' is wrong")
    mariadb.kill()
    wait_for(lambda: [what for what, _ in causes(take()) if what == "run waits"], what="no store")
    cause = next(cause for (what, _), cause in causes(take()).items() if what == "run waits")
    assert cause.startswith("cannot use ")
