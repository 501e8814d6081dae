"""Recurring scans: entries of the settings become due times, due times become scans, once each."""
