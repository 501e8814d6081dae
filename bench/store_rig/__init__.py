"""What bench/store.py runs: writers of rows, and what the spool is put through."""
