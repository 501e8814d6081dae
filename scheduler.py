"""`python scheduler.py` is `rqscan scheduler`."""

import sys

from rqscan.cli import main

if __name__ == "__main__":
    sys.exit(main(["scheduler", *sys.argv[1:]]))
