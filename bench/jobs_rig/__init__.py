"""What bench/jobs.py stands on: the contenders, their clients, and how each thing is measured."""
