"""Prometheus: the snapshot as metrics; its library is an optional dependency."""
