-- What is unfinished is found without reading all that has ended.

CREATE INDEX IF NOT EXISTS chunks_by_state ON chunks (state, enqueued_at, scan_id);
