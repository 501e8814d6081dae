"""Scan kinds of the chaos runs."""
