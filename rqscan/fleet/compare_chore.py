"""The chores that need both the store and Redis; called as those of `rqscan.fleet.chores`.

- compare: bring Redis in line with the plan, of all scans that have not ended; if another store is
  the fleet's by now, that is a failure
- look: the same, of scans that were asked for longer ago than the argument (s) and never wholly
  enqueued, and of those that have ended in the store or in Redis only
"""

import sys
from typing import Any

from rqscan.broker.connect import connect
from rqscan.fleet.chores import main
from rqscan.scan import compare
from rqscan.settings import Settings


def _compare(settings: Settings, asked_s: Any = None) -> dict[str, Any]:
    with connect(settings) as client:
        done = compare.compare(settings, client, unenqueued_for_s=asked_s, by_force=False)
    return {"scans": done.scans, "enqueued": done.enqueued}


if __name__ == "__main__":
    sys.exit(main({"compare": _compare, "look": _compare}, sys.argv[1], int(sys.argv[2])))
