"""What the spool is put through: `keep.py append|drain|job HOME URL CHUNKS SIZE`; prints JSON.

append: seconds of each append. drain: seconds of all, and the most memory held, in bytes. job:
seconds that the outbox takes for each record, each in a process forked for it as a work-horse is.
"""

import gc
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rqscan.settings import Settings
from rqscan.store.drain import drain as drain_all
from rqscan.store.outbox import Outbox
from rqscan.store.spool import Spool
from rqscan.tally import Moved
from store_rig.records import records, settings_of


def append(settings: Settings, chunks: int, size: int) -> list[float]:
    spool = Spool(settings)
    return [_timed(lambda one=one: spool.append(one)) for one in records(chunks, size)]


def drain(settings: Settings, _chunks: int, _size: int) -> dict[str, Any]:
    moved = Moved()
    spent = _timed(lambda: drain_all(settings, moved))
    # Not by getrusage, which counts from before exec: then it is the bench's own memory.
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    assert found
    return {"rows": moved.rows, "s": spent, "rss_bytes": 1024 * int(found[1])}


def job(settings: Settings, chunks: int, size: int) -> list[float]:
    outbox = Outbox(settings)
    outbox.foresee()
    gc.collect()  # as the template does
    gc.freeze()
    gc.disable()
    return [_in_child(lambda one=one: outbox.record(one)) for one in records(chunks, size)]


def _timed(act: Callable[[], Any]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def _in_child(act: Callable[[], Any]) -> float:
    get, put = os.pipe()
    if not (pid := os.fork()):
        os.write(put, str(_timed(act)).encode())
        os._exit(0)
    os.close(put)
    with os.fdopen(get) as told:
        spent = float(told.read())
    os.waitpid(pid, 0)
    return spent


def main() -> None:
    what, home, url, chunks, size = sys.argv[1:]
    print(json.dumps(globals()[what](settings_of(home, url), int(chunks), int(size))))


if __name__ == "__main__":
    main()
