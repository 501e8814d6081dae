-- What is unfinished is found without reading all that has ended. MySQL has no IF NOT EXISTS here.

SET @chunks_by_state = (
    SELECT IF(COUNT(*) = 0,
        'CREATE INDEX chunks_by_state ON chunks (state, enqueued_at, scan_id)', 'DO 0')
    FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'chunks' AND index_name = 'chunks_by_state'
);

PREPARE chunks_by_state FROM @chunks_by_state;

EXECUTE chunks_by_state;

DEALLOCATE PREPARE chunks_by_state;
