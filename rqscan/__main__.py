"""`python -m rqscan`."""

import sys

from rqscan.cli import main

if __name__ == "__main__":
    sys.exit(main())
