-- Take follow-ups that nobody has seen to: their worker died, or could not.
-- KEYS 1 follow-ups
-- ARGV 1 most to take, 2 seconds until they are taken for left over again
-- Returns END:JOB of each.
local s = now()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', s, 'LIMIT', 0, ARGV[1])
for _, member in ipairs(due) do redis.call('ZADD', KEYS[1], s + tonumber(ARGV[2]), member) end
return due
