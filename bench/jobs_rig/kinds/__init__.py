"""Scan kinds of the bench, set by `jobs.path`: ours run no others in it."""
