-- Put the runs of an entry that fell due on the list of runs, and move the entry on.
-- KEYS 1 leader, 2 schedule, 3 entry hash, 4 runs, 5 bell of who makes them
-- ARGV 1 the leader's claim, 2 entry, 3 due time that it stands at, 4 its next due time or '', 5 when
--      to fire that (Unix s, or inf), 6 state of the entry, then each run
-- Returns 1; nothing if the lease is not ours, another has moved the entry, or it is early.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return end
if redis.call('HGET', KEYS[3], 'due') ~= ARGV[3] then return end
local s, us = now()
if (tonumber(redis.call('ZSCORE', KEYS[2], ARGV[2])) or math.huge) > s + us / 1e6 then return end
for i = 7, #ARGV do redis.call('ZADD', KEYS[4], 'NX', string.format('%d.%06d', s, us), ARGV[i]) end
if #ARGV > 6 then ring(KEYS[5]) end
redis.call('ZADD', KEYS[2], ARGV[5], ARGV[2])
redis.call('HSET', KEYS[3], 'due', ARGV[4], 'state', ARGV[6])
return 1
