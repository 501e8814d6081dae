-- Take waiting jobs out of a queue and delete them; those that were claimed meanwhile stay.
-- KEYS 1 queue
-- ARGV ids of jobs
-- Returns how many were taken out.
local s, us = now()
local taken = 0
for _, id in ipairs(ARGV) do
  if redis.call('LREM', KEYS[1], 1, id) == 1 then
    local job = 'rq:job:' .. id
    end_chunk(job, iso(s, us), 'cancelled', 0, 0)
    redis.call('DEL', job, job .. ':dependents', 'rq:results:' .. id)
    taken = taken + 1
  end
end
if taken > 0 then count(s, string.sub(KEYS[1], #'rq:queue:' + 1) .. ':gone', taken) end
return taken
