"""`python worker.py QUEUE…` is `rqscan worker QUEUE…`."""

import sys

from rqscan.cli import main

if __name__ == "__main__":
    sys.exit(main(["worker", *sys.argv[1:]]))
