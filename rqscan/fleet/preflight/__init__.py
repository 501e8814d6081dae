"""Preflight: what the doctor asks, and how it judges the answers."""
