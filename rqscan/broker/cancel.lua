-- Make Redis agree that chunks are cancelled: waiting jobs go, running ones are to be stopped.
-- ARGV 1 scan, 2 its queue, 3 seconds that the hash of a stopped job is kept, then number and
--      generation of each chunk
-- Returns {chunks not running, chunks running}, of those that had not ended.
-- A job that goes leaves its id in the queue, where no claim takes it; purge.lua clears it away, and
-- counts it then. What is not in the queue is counted here.
local scan = ARGV[1]
local s, us = now()
local waiting, running = 0, 0

local function queue_of(job) return redis.call('HGET', job, 'origin') or ARGV[2] end

local function stop(job, id)
  local worker = redis.call('HGET', job, 'worker_name') or ''
  redis.call('HSET', job, 'status', 'canceled', 'ended_at', iso(s, us), 'rqscan_token', '')
  redis.call('EXPIRE', job, ARGV[3])
  redis.call('PUBLISH', 'rq:pubsub:' .. worker, cjson.encode({command = 'stop-job', job_id = id}))
end

local function drop(job, id)
  local queue = queue_of(job)
  for _, registry in ipairs({'scheduled', 'deferred', 'failed'}) do
    redis.call('ZREM', 'rq:' .. registry .. ':' .. queue, id)
  end
  redis.call('DEL', job, 'rq:results:' .. id)
end

for i = 4, #ARGV, 2 do
  local id = scan .. '-' .. ARGV[i] .. '-' .. ARGV[i + 1]
  local job = 'rq:job:' .. id
  local status = redis.call('HGET', job, 'status')
  local is_new = count_end(scan, tonumber(ARGV[i]), iso(s, us), 'cancelled', 0, 0)
  if status == 'started' or status == 'scheduled' then count(s, queue_of(job) .. ':gone') end
  if status == 'started' then
    stop(job, id)
    running = running + 1
  elseif status ~= 'canceled' and status ~= 'finished' then
    if status and status ~= 'failed' and status ~= 'stopped' or is_new then
      waiting = waiting + 1
    elseif status and redis.call('HEXISTS', 'rqscan:scan:' .. scan, 'total') == 1 then
      -- Its last attempt ended while the plan was being marked.
      redis.call('HINCRBY', 'rqscan:scan:' .. scan, 'failed', -1)
      redis.call('HINCRBY', 'rqscan:scan:' .. scan, 'cancelled', 1)
    end
    drop(job, id)
  end
end
return {waiting, running}
