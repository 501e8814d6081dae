-- Put a failed job back at the end of its queue with all its retries; its attempts count on, so that
-- a late one stays fenced. The end of its chunk is no longer counted.
-- KEYS 1 job, 2 queue, 3 failed registry, 4 bell, 5 set of queues
-- ARGV 1 id, 2 queue name
-- Returns put, other (it is not among the failed), or gone (nothing is kept of it).
if redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return 'other' end
if redis.call('EXISTS', KEYS[1]) == 0 then return 'gone' end
local s, us = now()
redis.call('HSET', KEYS[1], 'status', 'queued', 'enqueued_at', iso(s, us), 'rqscan_token', '')
redis.call('HDEL', KEYS[1], 'exc_info', 'started_at', 'ended_at', 'worker_name',
  'rqscan_lost', 'rqscan_host_losses', 'rqscan_failures', 'rqscan_losses')
redis.call('PERSIST', KEYS[1])
redis.call('SADD', KEYS[5], KEYS[2])
redis.call('RPUSH', KEYS[2], ARGV[1])
count(s, ARGV[2] .. ':in')
ring(KEYS[4])

local scan = redis.call('HGET', KEYS[1], 'rqscan_scan')
local number = scan and number_of(KEYS[1], scan)
local progress = 'rqscan:scan:' .. (scan or '')
local ended = progress .. ':ended'
if number and redis.call('HEXISTS', progress, 'total') == 1
  and redis.call('GETBIT', ended, number) == 1 then
  redis.call('SETBIT', ended, number, 0)
  redis.call('HINCRBY', progress, 'failed', -1)
  if redis.call('HDEL', progress, 'finished_at') == 1 then
    for _, of in ipairs({'', ':ended', ':generations'}) do redis.call('PERSIST', progress .. of) end
    redis.call('ZADD', 'rqscan:scans', s, scan)
  end
end
return 'put'
