"""The stable: the processes that run jobs, and how the worker speaks with them."""
