"""The link to the database: silent without a reset, or its name at another address.

Each test is a program in a network namespace, with files of its own in /etc.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PRELUDE = """
import os, subprocess, sys
from contextlib import ExitStack, closing
from pathlib import Path
from rqscan.errors import StoreUnavailable
from rqscan.home import known_id
from rqscan.store import mysql, outbox
from rqscan.store.breaker import Breaker
from rqscan.store.dialect import Limits
from rqscan.store.intake import Intake
from rqscan.store.outbox import Kept, Outbox
from rqscan.store.spool import Spool
from rqscan.tally import Moved
from tests.databases import MariaDB
from tests.spools import a_record, drained, in_store, plan, seen, settings_of

folder, PORT = Path(sys.argv[1]), 3306
outbox.LIMITS = Limits(connect=0.5, answer=1)
mysql.SILENT_S = 2

def run(*words):
    subprocess.run(words, check=True)

def drop(verb, port=PORT):
    for end, at in (("--sport", "-s"), ("--dport", "-d")):
        of_link = (end, str(port), at, "127.0.0.1")
        run("iptables", verb, "INPUT", "-p", "tcp", *of_link, "-j", "DROP")

def hosts(text):
    (folder / "hosts").write_text("127.0.0.1 localhost\\n" + text)
    if not os.path.samefile(folder / "hosts", "/etc/hosts"):
        run("mount", "--bind", folder / "hosts", "/etc/hosts")

def server_in(name):
    (folder / name).mkdir()
    server = MariaDB(folder / name, port=PORT).start()
    with closing(server.connect(autocommit=True)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE scans")
        cursor.execute("CREATE USER scan@'%'")
        cursor.execute("GRANT ALL ON scans.* TO scan@'%'")
    return server

def settings_at(host, home="home"):
    (folder / home).mkdir(exist_ok=True)
    return settings_of(folder / home, f"mysql+pymysql://scan@{host}:{PORT}/scans")

def fails(settings):
    try:
        drained(settings)
    except StoreUnavailable:
        return True
"""


def run_inside(namespace, folder, program):
    argv = ["unshare", "--mount", sys.executable, "-W", "error", "-c", PRELUDE + program, folder]
    done = subprocess.run(
        namespace().inside(argv), capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.namespaces
def test_what_a_silent_link_does_not_take_is_spooled_and_drained_when_it_is_back(
    namespace, short_path
):
    run_inside(
        namespace,
        short_path,
        """
with ExitStack() as ends:
    ends.enter_context(closing(server_in("server")))
    settings = settings_at("127.0.0.1")
    plan(settings, 6)
    horse = ends.enter_context(closing(Outbox(settings)))
    assert horse.record(a_record(0)) is Kept.STORED
    drop("-A")  # between two transactions
    assert horse.record(a_record(1)) is Kept.SPOOLED
    assert horse.record(a_record(2)) is Kept.SPOOLED  # without a try
    assert Breaker(settings.home).away().tries == 1
    drop("-D")
    assert drained(settings) == Moved(rows=2)

    put = Intake._put
    def cut(intake, connection, record, keyed):
        put(intake, connection, record, keyed)
        drop("-A", connection._sock.getsockname()[1])  # for good, as if its host were gone
    Intake._put = cut
    assert horse.record(a_record(3)) is Kept.SPOOLED
    Intake._put = put
    assert drained(settings) == Moved(rows=1)
    assert horse.record(a_record(4)) is Kept.STORED

    Spool(settings).append(a_record(5))
    drop("-A")
    assert fails(settings)  # after its own, longer limit
    drop("-D")
    assert drained(settings) == Moved(rows=1)
    assert in_store(settings) == ([(n, 1000 + n) for n in range(6)], {"finished": 6})
    status = Spool(settings).status()
    assert (status.records, status.quarantined) == (0, 0)
""",
    )


@pytest.mark.namespaces
def test_what_is_spooled_goes_to_its_store_wherever_the_name_leads(namespace, short_path):
    run_inside(
        namespace,
        short_path,
        """
with ExitStack() as ends:
    hosts("127.0.0.1 db.example")
    server = ends.enter_context(closing(server_in("server")))
    settings = settings_at("db.example")
    plan(settings, 6)
    horse = ends.enter_context(closing(Outbox(settings)))
    assert horse.record(a_record(0)) is Kept.STORED
    drop("-A")
    assert horse.record(a_record(1)) is Kept.SPOOLED
    hosts("127.0.0.2 db.example")  # where it has moved to
    assert drained(settings) == Moved(rows=1)
    assert horse.record(a_record(2)) is Kept.STORED

    hosts("")
    horse.close()
    assert horse.record(a_record(3)) is Kept.SPOOLED  # a name that is not found
    assert fails(settings)
    server.kill()
    another = server_in("another")
    hosts("127.0.0.2 db.example")
    own = known_id(settings)
    plan(settings_at("db.example", "other home"), 6)
    assert drained(settings) == Moved()  # it is another store
    assert known_id(settings) == own
    status = Spool(settings).status()
    assert (status.records, status.quarantined) == (1, 0)
    assert in_store(settings) == ([], {"planned": 6})
    another.kill()

    server.start()
    assert drained(settings) == Moved(rows=1)
    assert in_store(settings)[0] == [(n, 1000 + n) for n in range(4)]
    status = Spool(settings).status()
    assert (status.records, status.quarantined) == (0, 0)
""",
    )
