"""What the fleet of tests/troubled.py runs: a scan kind, and plain functions that fail."""
