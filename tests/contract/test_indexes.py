"""What the store is asked, at a million rows: every question finds its rows by an index.

The databases explain each statement, and count what they have read for it: the rows that the
question is about, a few times over, and no more.
"""

import sqlite3
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from rqscan.store.chunks import Chunks
from rqscan.store.dialect import Limits
from rqscan.store.migrate import open_current
from rqscan.store.prune import Pruner
from rqscan.store.queries import _Query
from rqscan.store.repository import Repository
from tests.spools import a_record, seen, settings_of

pytestmark = pytest.mark.slow

SCANS, CHUNKS, ROWS = 1_000, 20, 50  # rows of each chunk: a million
FILL = """
INSERT INTO scans (scan_id, name, requested_at, spec)
SELECT 's' || s.seq, 'name' || (s.seq % 50), '2026-01-01 00:00:00.' || (100000 + s.seq),
    REPLACE('{spec}', '"s1"', '"s' || s.seq || '"')
FROM seq_0_to_999 s;

INSERT INTO chunks (scan_id, chunk, kind, state, generation, attempt, enqueued_at, worker,
    started_at, finished_at, probes, observations)
SELECT 's' || s.seq, c.seq, 'ports', CASE WHEN s.seq = 999 THEN 'planned' ELSE 'finished' END,
    1, 1, CASE WHEN c.seq > 9 OR s.seq < 999 THEN '2026-01-01 00:00:01.000000' END, 'w1',
    '2026-01-01 00:00:02.000000', '2026-01-01 00:00:03.000000', 100, 50
FROM seq_0_to_999 s, seq_0_to_19 c;

INSERT INTO observations
    (row_key, scan_id, chunk, kind, host, host_key, port, proto, state, data, observed_at)
SELECT CAST(1000000000000000 + s.seq * 1000 + c.seq * 50 + r.seq AS {bytes}),
    's' || s.seq, c.seq, 'ports', 'h' || ((s.seq * 1000 + c.seq * 50 + r.seq) % 5000),
    CAST('{name}h' || ((s.seq * 1000 + c.seq * 50 + r.seq) % 5000) AS {bytes}),
    c.seq * 50 + r.seq, 'tcp', 'open', '{{}}', '2026-01-01 00:00:02.' || (100000 + s.seq)
FROM seq_0_to_999 s, seq_0_to_19 c, seq_0_to_49 r;
"""
"""Every fifth scan sees the same thousand of 5,000 hosts; half of one scan is not enqueued."""

SPEC = (
    '{"scan_id":"s1","name":"n","queue":"wakaka","kinds":["ports"],"targets":["127.0.0.1"],'
    '"seed":7,"hosts_per_chunk":{"ports":1},"chunks":20,"probes":20,'
    '"requested_at":"2026-01-01T00:00:00Z"}'
)
AT = datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)


def results(scan_id=None, **only):
    return lambda store, _: list(store.rows(scan_id, **only))


def pages(name):
    return lambda _, chunks: list(getattr(chunks, name)("s999"))


QUESTIONS = {  # what is asked, and how many rows of the tables it is about
    "results": (results("s500"), 1_000),
    "results, one port": (results("s500", port=22), 1_000),
    "results, one kind": (results("s500", kind="ports"), 1_000),
    "results, another kind": (results("s500", kind="banner"), 1_000),
    "results, since": (results("s500", since=AT + timedelta(days=1)), 1_000),
    "results, with coverage": (results("s500", coverage=True), 1_000),
    "results, one host": (results("s500", host="h7"), 1),
    "results, the first": (results("s500", limit=10), 10),
    "results of all scans, one host": (results(host="h7"), 200),
    "results of all scans, the first": (results(limit=1_500), 1_500),
    "scan": (lambda store, _: store.scan("s500"), 1),
    "newest scan": (lambda store, _: store.latest_scan(), 1),
    "newest scan of a name": (lambda store, _: store.latest_scan("name7"), 1),
    "scans": (lambda store, _: store.scans(20), 20 * 20),
    "progress": (lambda store, _: store.progress("s500"), 20),
    "fence": (
        lambda store, _: store.record(a_record(3, seen(1, observed_at=AT), scan_id="s500")),
        51,
    ),
    "fence, too late": (
        lambda store, _: store.record(a_record(3, scan_id="s501", attempt=0)),
        1,
    ),
    "fence of a part": (
        lambda store, _: store.record_kept([(a_record(4, scan_id="s500"), True)]),
        51,
    ),
    "finished": (lambda store, _: store.finished(a_record(3, scan_id="s500")), 1),
    "plan": (pages("pages"), 20),
    "plan, what is not enqueued": (pages("unenqueued"), 20),
    "plan, enqueued": (lambda _, chunks: chunks.mark_enqueued("s999", range(20)), 20),
    "unfinished scans": (lambda _, chunks: chunks.unfinished_scans(), 20),
    "scans that are not enqueued": (lambda _, chunks: chunks.unenqueued_scans(AT), 20),
    "plan, lost": (
        lambda _, chunks: chunks.raise_generation("s999", next(chunks.pages("s999"))),
        40,
    ),
    "cancel": (lambda _, chunks: chunks.cancel("s999", [3]), 21),
    "cancel some": (lambda _, chunks: chunks.cancel_some("s998", range(5)), 5),
    "plan again": (lambda _, chunks: chunks.plan_again("s999", range(20)), 20),
    "failed again": (lambda _, chunks: chunks.reopen("s998", range(5)), 5),
    "prune, a batch": (
        lambda store, _: store._database.write(
            partial(Pruner(store._database, DAY, ())._delete_some, scan_id="s0")
        ),
        1_020,
    ),
}
DAY = timedelta(days=1)


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def database(request, tmp_path_factory):
    is_server = request.param == "mariadb"
    url = request.getfixturevalue("mariadb").database_url() if is_server else None
    settings = settings_of(tmp_path_factory.mktemp("home"), url)
    with open_current(settings, Limits(connect=10, answer=200)) as opened:  # to fill it takes long
        with opened.transaction() as connection:
            _fill(connection.cursor(), is_server=is_server)
        yield opened


def _fill(cursor, *, is_server):
    if is_server:
        cursor.execute("SET sql_mode = CONCAT(@@sql_mode, ',PIPES_AS_CONCAT')")
    for most in (999, 49, 19):
        cursor.execute(f"CREATE TEMPORARY TABLE seq_0_to_{most} (seq INTEGER PRIMARY KEY)")
        numbers = ",".join(f"({n})" for n in range(most + 1))
        cursor.execute(f"INSERT INTO seq_0_to_{most} VALUES {numbers}")
    name = "\x7f"  # as host_key has names
    text = FILL.format(bytes="BINARY" if is_server else "BLOB", name=name, spec=SPEC)
    for statement in text.split(";\n"):
        if statement.strip():
            cursor.execute(statement)
    if is_server:
        cursor.execute("SET sql_mode = 'TRADITIONAL'")


class Watch:
    """What was asked of a database meanwhile, and how much it has read for it."""

    def __init__(self, database):
        self.database, self.asked, self.read = database, [], 0

    @contextmanager
    def watching(self, monkeypatch):
        ask = _Query.__call__

        def note_and_ask(query, connection, /, **parameters):
            if not query.sql.startswith("INSERT"):
                self.asked.append((query.sql, parameters))
            return ask(query, connection, **parameters)

        with self.database.transaction() as connection:
            pass
        with monkeypatch.context() as patch:
            patch.setattr(_Query, "__call__", note_and_ask)
            if isinstance(connection, sqlite3.Connection):
                connection.set_progress_handler(self._step, STEPS)
                yield
                connection.set_progress_handler(None, 0)
            else:
                connection.cursor().execute("FLUSH STATUS")
                yield
                with connection.cursor() as cursor:
                    cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
                    self.read = sum(int(n) for _, n in cursor.fetchall())

    def _step(self):
        self.read += 1
        return 0

    def plans(self):
        """Give what the database says of each statement, line by line."""
        with self.database.transaction() as connection:
            is_file = isinstance(connection, sqlite3.Connection)
            explain = "EXPLAIN QUERY PLAN " if is_file else "EXPLAIN FORMAT=TRADITIONAL "
            for sql, parameters in self.asked:
                cursor = connection.cursor()
                cursor.execute(explain + sql, parameters)
                names = [column[0] for column in cursor.description]
                for line in cursor.fetchall():
                    yield sql, dict(zip(names, line, strict=True))


DERIVED = {"SCAN CONSTANT ROW", "SCAN n", "SCAN p"}
"""What SQLite says of rows that the statement itself has made."""

STEPS = 50
"""Of SQLite's machine: less than it takes to read a row and what hangs on it."""


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_is_answered_by_indexes(database, question, monkeypatch):
    ask, about = QUESTIONS[question]
    watch = Watch(database)
    with watch.watching(monkeypatch):
        ask(Repository(database), Chunks(database))
    assert watch.asked
    for sql, line in watch.plans():
        assert _is_by_index(line), (sql, line)
    assert watch.read <= 10 * about + 50


def _is_by_index(line):
    if "detail" in line:  # SQLite
        is_table = line["detail"].startswith("SCAN") and line["detail"] not in DERIVED
        return not is_table or " INDEX" in line["detail"]
    return line["type"] != "ALL" or str(line["table"]).startswith("<")
