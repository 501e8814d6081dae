"""One writer: `write.py WAY SERVER ROWS`, in an interpreter that has what the way needs.

SERVER is how to connect, JSON; ROWS a pickle: chunks, each a list of rows as tuples in the order of
COLUMNS. It prints the seconds that all took, its own CPU seconds, and the server's. A chunk is one
transaction. Ours makes its rows itself, from chunk records, and writes the records with them.
"""

# ruff: noqa: PLC0415 - a way imports what its interpreter alone has

import json
import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLUMNS = ("row_key", "scan_id", "chunk", "kind", "host", "host_key", "port", "proto", "state",
           "data", "observed_at")  # fmt: skip
INSERT = f"INSERT INTO observations ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * 11)})"
LOAD = """LOAD DATA LOCAL INFILE %s INTO TABLE observations CHARACTER SET utf8mb4
FIELDS TERMINATED BY '\\t' ESCAPED BY '' (@row_key, scan_id, chunk, kind, host, @host_key, port,
proto, state, data, observed_at) SET row_key = UNHEX(@row_key), host_key = UNHEX(@host_key)"""

Chunks = list[list[tuple[Any, ...]]]


def ours(server: dict[str, Any], chunks: Chunks) -> Callable[[], None]:
    from rqscan.store.database import Database
    from rqscan.store.intake import Intake
    from store_rig.records import records, settings_of

    made = list(records(len(chunks), len(chunks[0])))
    database = Database.open(settings_of(server["home"], server["url"]))

    def write() -> None:
        intake = Intake(database)
        for record in made:
            assert intake.record(record)

    return write


def executemany(server: dict[str, Any], chunks: Chunks) -> Callable[[], None]:
    return _by_pymysql(server, chunks, lambda cursor, rows: cursor.executemany(INSERT, rows))


def single(server: dict[str, Any], chunks: Chunks) -> Callable[[], None]:
    def insert(cursor: Any, rows: list[tuple[Any, ...]]) -> None:
        for row in rows:
            cursor.execute(INSERT, row)

    return _by_pymysql(server, chunks, insert)


def load_data(server: dict[str, Any], chunks: Chunks) -> Callable[[], None]:
    path = Path(server["folder"], "rows")

    def load(cursor: Any, rows: list[tuple[Any, ...]]) -> None:
        _put_in_file(path, rows)
        cursor.execute(LOAD, [str(path)])

    return _by_pymysql(server, chunks, load)


def load_data_ready(server: dict[str, Any], chunks: Chunks) -> Callable[[], None]:
    """As load_data, but its files are there before the clock runs."""
    paths = [Path(server["folder"], f"rows{n}") for n in range(len(chunks))]
    for path, rows in zip(paths, chunks, strict=True):
        _put_in_file(path, rows)
    left = iter(paths)
    return _by_pymysql(server, chunks, lambda cursor, _: cursor.execute(LOAD, [str(next(left))]))


def sqlalchemy_core(server: dict[str, Any], chunks: Chunks) -> Callable[[], None]:
    import sqlalchemy as sa

    table = sa.Table("observations", sa.MetaData(), *(sa.Column(name) for name in COLUMNS))
    engine = sa.create_engine(server["url"] + "&charset=utf8mb4")
    named = [[dict(zip(COLUMNS, row, strict=True)) for row in rows] for rows in chunks]

    def write() -> None:
        for rows in named:
            with engine.begin() as connection:
                connection.execute(table.insert(), rows)

    engine.connect().close()
    return write


def _by_pymysql(
    server: dict[str, Any], chunks: Chunks, put: Callable[[Any, Any], Any]
) -> Callable[[], None]:
    import pymysql

    connection = pymysql.connect(
        unix_socket=server["socket"], user="root", database=server["database"], local_infile=True,
        charset="utf8mb4", binary_prefix=True, ssl_disabled=True,
    )  # fmt: skip

    def write() -> None:
        for rows in chunks:
            put(connection.cursor(), rows)
            connection.commit()

    return write


def _put_in_file(path: Path, rows: list[tuple[Any, ...]]) -> None:
    lines = (
        "\t".join(value.hex() if isinstance(value, bytes) else str(value) for value in row)
        for row in rows
    )
    path.write_text("\n".join(lines) + "\n", "utf-8")


def main() -> None:
    way, server, rows = sys.argv[1:]
    write = globals()[way](json.loads(server), pickle.loads(Path(rows).read_bytes()))
    pid = json.loads(server)["pid"]
    began, cpu, its_cpu = time.monotonic(), time.process_time(), cpu_s(pid)
    write()
    spent = time.monotonic() - began, time.process_time() - cpu, cpu_s(pid) - its_cpu
    print(json.dumps(spent))


def cpu_s(pid: int) -> float:
    """Give the CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
