"""What bench/scheduler.py runs: four schedulers, and a reader of the queue that they fill."""
