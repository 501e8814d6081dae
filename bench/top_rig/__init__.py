"""What bench/top.py stands on: a fleet faked in Redis, who watches it, and how that is measured."""
