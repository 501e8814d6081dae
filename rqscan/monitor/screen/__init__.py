"""The screen of `rqscan top`: snapshots and keys → lines; nothing here knows Redis."""
