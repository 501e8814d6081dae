-- Clear one stretch of a queue of a scan's ids whose jobs are gone; the others keep their order.
-- KEYS 1 queue
-- ARGV 1 scan, 2 ids to pass over from the end of the queue, 3 ids to look at
-- Returns {looked at, removed}. From the end to the front, so that claims meanwhile move nothing
-- out of sight.
local from, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local ids = redis.call('LRANGE', KEYS[1], -(from + most), -(from + 1))
local removed = 0
for i, id in ipairs(ids) do
  local job = 'rq:job:' .. id
  if place_of(job, ARGV[1]) and redis.call('EXISTS', job) == 0 then
    redis.call('LSET', KEYS[1], i - 1 - #ids - from, '')
    removed = removed + 1
  end
end
if removed > 0 then
  redis.call('LREM', KEYS[1], -removed, '')
  count(now(), string.sub(KEYS[1], #'rq:queue:' + 1) .. ':gone', removed)
end
return {#ids, removed}
