"""`python -m bench.chaos`: run it, print the account, and end with 1 if a job was lost."""

import argparse
import json
import secrets
import sys

from bench.chaos import links
from bench.chaos.run import run
from bench.chaos.verdict import show


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2, help="of faults (2)")
    parser.add_argument("--seed", type=int, help="of the faults; a random one is printed")
    parser.add_argument("--workers", type=int, default=4, help="in the fleet, two jobs each (4)")
    parser.add_argument("--stock", action="store_true", help="the same against stock RQ as well")
    parser.add_argument("--database", action="store_true", help="ours on a MariaDB, under faults")
    parser.add_argument("--keep-data", action="store_true", help="no Redis comes back without it")
    parser.add_argument("--json", action="store_true", help="print one object for each system")
    asked = parser.parse_args()
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    print(f"chaos: {asked.minutes:g} minutes, seed {seed}", file=sys.stderr)
    no_links = links.enter()
    reports = []
    for system in ["ours", "stock"] if asked.stock else ["ours"]:
        may_lose_data = system == "ours" and not asked.keep_data  # stock RQ has no plan
        reports.append(
            run(
                system, seed, asked.minutes, asked.workers,
                no_links=no_links, may_lose_data=may_lose_data,
                has_database=asked.database and system == "ours",
            )
        )  # fmt: skip
    if asked.json:
        print(json.dumps({report.system: report.as_json() for report in reports}))
    else:
        show(reports)
    return 0 if reports[0].is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
