-- Put a chunk's job into its queue once, whoever asks how often: an id that exists is left alone,
-- and so is a chunk whose end was counted, or that was put in a newer generation.
-- KEYS 1 job, 2 queue, 3 set of queues, 4 bell, 5 ended chunks of the scan, 6 their generations
-- ARGV 1 id, 2 queue name, 3 number of the chunk, 4 its generation, 5... fields of the job's hash
-- Returns 1 if it was put, 0 if not.
local newest = tonumber(redis.call('HGET', KEYS[6], ARGV[3]) or '1')
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('GETBIT', KEYS[5], ARGV[3]) == 1
  or tonumber(ARGV[4]) < newest then return 0 end
if tonumber(ARGV[4]) > newest then redis.call('HSET', KEYS[6], ARGV[3], ARGV[4]) end
local s, us = now()
local at = iso(s, us)
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('HSET', KEYS[1], 'status', 'queued', 'created_at', at, 'enqueued_at', at)
redis.call('SADD', KEYS[3], KEYS[2])
redis.call('RPUSH', KEYS[2], ARGV[1])
count(s, ARGV[2] .. ':in')
ring(KEYS[4])
return 1
