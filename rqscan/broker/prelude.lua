-- Shared by every script, put in front of it.
-- Redis has no os.date: civil date from days, after Howard Hinnant, "chrono-Compatible Low-Level
-- Date Algorithms" (days_from_civil and its inverse).
local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]), tonumber(t[2])
end

local function iso(s, us)
  local days = math.floor(s / 86400)
  local rest = s - days * 86400
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524)
    - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month, day,
    math.floor(rest / 3600), math.floor(rest % 3600 / 60), rest % 60, us)
end

local function ring(bell)
  if redis.call('EXISTS', bell) == 0 then redis.call('RPUSH', bell, '1') end
end

-- Count what came into a queue (QUEUE:in), ended (out), failed, or went otherwise (gone): for the
-- rates of the last minute, and a minute each for the last half hour.
local function count(s, field, by)
  by = by or 1
  local key = 'rqscan:stat:' .. math.floor(s / 10)
  if redis.call('HINCRBY', key, field, by) == by then redis.call('EXPIRE', key, 180) end
  key = 'rqscan:minute:' .. math.floor(s / 60)
  if redis.call('HINCRBY', key, field, by) == by then redis.call('EXPIRE', key, 2100) end
end

-- Keep how a job was lost, a line each; the limits of losses keep them few.
local function note_loss(job, at, how)
  local before = redis.call('HGET', job, 'rqscan_losses') or ''
  redis.call('HSET', job, 'rqscan_losses', before .. at .. ' ' .. how .. '\n')
end

-- Tell whether a worker's store and protocol are those of the fleet; who enqueues sets them.
-- A worker that knows of a mismatch says `?`, so that a Redis that has lost all does not trust it.
local function is_of_fleet(key, store, protocol)
  if store == '?' then return false end
  local theirs = redis.call('HMGET', key, 'store_id', 'protocol')
  return (not theirs[1] or store == theirs[1]) and (not theirs[2] or protocol == theirs[2])
end

-- Take a lease that is free, or renew one's own.
local function holds(key, name, ms)
  local holder = redis.call('GET', key)
  if holder and holder ~= name then return false end
  redis.call('SET', key, name, 'PX', ms)
  return true
end

-- Put the jobs of a queue that are due, by Redis' clock, at its end.
local function put_due(queue, f, at)
  local scheduled = 'rq:scheduled:' .. queue
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', scheduled, '-inf', f, 'LIMIT', 0, 500)) do
    local job = 'rq:job:' .. id
    redis.call('ZREM', scheduled, id)
    local fields = redis.call('HMGET', job, 'status', 'rate_limit_key', 'rate_limit_concurrency',
      'enqueue_at_front', 'enqueue_at_front_on_retry', 'ended_at')
    local status, limit, places = fields[1], fields[2], fields[3]
    local has_run = fields[6] and fields[6] ~= ''
    local is_front = fields[4] == '1' or (fields[5] == '1' and has_run)
    if status == 'scheduled' and limit and places then
      -- It waits for a place, which RQ's own code hands out: a follow-up.
      redis.call('HSET', job, 'status', 'rate_limited', 'enqueue_at_front', is_front and 1 or 0)
      redis.call('SADD', 'rq:rl-keys', limit)
      redis.call('HSET', 'rq:rl:' .. limit, 'concurrency', places)
      redis.call('ZADD', 'rq:rl:' .. limit .. ':rate_limited', math.floor(f), id)
      redis.call('ZADD', 'rqscan:follow_ups', 0, 'retry:' .. id)
    elseif status == 'scheduled' then
      redis.call('HSET', job, 'status', 'queued', 'enqueued_at', at)
      redis.call(is_front and 'LPUSH' or 'RPUSH', 'rq:queue:' .. queue, id)
      redis.call('SADD', 'rq:queues', 'rq:queue:' .. queue)
    end
  end
end

-- What a sweeper does for the queues that living workers serve: what is due is put
-- into them, and no bell stays lost.
-- Returns the names of those that may run.
local function tend(served, paused, suspended, s, f, at)
  local open = {}
  redis.call('ZREMRANGEBYSCORE', served, '-inf', f - 60)
  for _, queue in ipairs(redis.call('ZRANGE', served, 0, -1)) do
    put_due(queue, f, at)
    if redis.call('SISMEMBER', paused, queue) == 0 and redis.call('EXISTS', suspended) == 0 then
      open[#open + 1] = queue
      if redis.call('EXISTS', 'rq:queue:' .. queue) == 1 then ring('rqscan:bell:' .. queue) end
    end
  end
  return open
end

-- Find what nobody has renewed for `lapse` s: job:token of each, whatever is known of its worker.
local function unheld(f, lease, lapse)
  local found = {}
  for _, key in ipairs(redis.call('SMEMBERS', 'rq:queues')) do
    local wip = 'rq:wip:' .. string.sub(key, #'rq:queue:' + 1)
    for _, pair in ipairs(redis.call('ZRANGEBYSCORE', wip, '-inf', f + lease - lapse)) do
      local id, token = string.match(pair, '^(.*):([^:]+)$')
      local holder = id and redis.call('HGET', 'rq:job:' .. id, 'rqscan_token')
      -- stock RQ's workers know no token: their registry is their own
      if holder == token then found[#found + 1] = pair
      elseif id and redis.call('EXISTS', 'rq:job:' .. id) == 0 then redis.call('ZREM', wip, pair) end
    end
  end
  return found
end

-- Read of a job what its end depends on.
local ASKS = {'rqscan_token', 'status', 'rqscan_scan', 'rate_limit_key', 'webhooks',
  'stopped_callback_name', 'group_id'}
local function asks_of(job)
  local asks = {}
  for i, value in ipairs(redis.call('HMGET', job, unpack(ASKS))) do asks[ASKS[i]] = value end
  return asks
end

-- Put down, with an end, that RQ's rules make something of it; called while the job has the status
-- that it ran with, but for a retry. Returns `answer`, with the end that is to be followed up if one
-- is. What is to be deleted stays until then. `asks` is of before the end.
local function with_follow_up(job, id, how, s, answer, asks)
  if how ~= 'retry' and asks.status == 'canceled' then how = 'canceled' end
  local calls_back = how == 'stopped' and (asks.stopped_callback_name or '') ~= ''
  local has_ended = how ~= 'retry' and (asks.webhooks or calls_back
    or redis.call('EXISTS', job .. ':dependents') == 1)
  if not asks.rate_limit_key and not has_ended then return answer end
  redis.call('ZADD', 'rqscan:follow_ups', s + 10, how .. ':' .. id)
  return {answer, how}
end

-- The number that a chunk has in its scan's plan and its generation, told by its job's key; nil for
-- any other job.
local function place_of(job, scan)
  local head = 'rq:job:' .. scan .. '-'
  if string.sub(job, 1, #head) ~= head then return nil end
  local number, generation = string.match(string.sub(job, #head + 1), '^(%d+)%-(%d+)$')
  return tonumber(number), tonumber(generation)
end

-- The number of a job's chunk; nil also for a job whose chunk was put in a newer generation.
local function number_of(job, scan)
  local number, generation = place_of(job, scan)
  local newest = number and redis.call('HGET', 'rqscan:scan:' .. scan .. ':generations', number)
  if newest and generation < tonumber(newest) then return nil end
  return number
end

-- Count the end of chunk `number` in its scan's progress, once however often it is told; the last
-- one ends the scan. `spooled` of its observations were not in the store yet. True if it was counted
-- now.
local function count_end(scan, number, at, how, observations, probes, spooled)
  local progress = 'rqscan:scan:' .. scan
  local names, counts = {'total', 'done', 'failed', 'cancelled', 'observations', 'probes'}, {}
  for i, value in ipairs(redis.call('HMGET', progress, unpack(names))) do
    if value then counts[names[i]] = tonumber(value) end
  end
  if not counts.total or not number or number >= counts.total then return false end
  if redis.call('SETBIT', progress .. ':ended', number, 1) == 1 then return false end
  counts[how] = (counts[how] or 0) + 1
  redis.call('HSET', progress, how, counts[how],
    'observations', string.format('%d', (counts.observations or 0) + observations),
    'probes', string.format('%d', (counts.probes or 0) + probes))
  if spooled and spooled ~= '0' then redis.call('HINCRBY', progress, 'spooled', spooled) end
  if (counts.done or 0) + (counts.failed or 0) + (counts.cancelled or 0) >= counts.total then
    redis.call('HSET', progress, 'finished_at', at)
    for _, of in ipairs({'', ':ended', ':generations'}) do redis.call('EXPIRE', progress .. of, 86400) end
    redis.call('ZREM', 'rqscan:scans', scan)
  end
  return true
end

local function end_chunk(job, at, how, observations, probes)
  local scan = redis.call('HGET', job, 'rqscan_scan')
  if scan then count_end(scan, number_of(job, scan), at, how, observations, probes) end
end

-- Fail a job that has lost its worker too often; `given_up` gets its id, attempt and the reason.
local function give_up(job, id, queue, losses, worker, s, at, given_up)
  local ttl = tonumber(redis.call('HGET', job, 'failure_ttl') or '604800')
  local why = 'the workers or hosts that ran it died ' .. losses .. ' times, last ' .. worker
  local attempt = redis.call('HGET', job, 'rqscan_attempt') or '0'
  for _, part in ipairs({id, attempt, why}) do given_up[#given_up + 1] = part end
  count(s, queue .. ':out')
  count(s, queue .. ':failed')
  end_chunk(job, at, 'failed', 0, 0)
  local answer = with_follow_up(job, id, 'failed', s, 'failed', asks_of(job))
  redis.call('HSET', job, 'status', 'failed', 'ended_at', at, 'exc_info', 'FailedError: ' .. why)
  if ttl ~= 0 then redis.call('ZADD', 'rq:failed:' .. queue, ttl > 0 and s + ttl or '+inf', id) end
  if ttl > 0 then redis.call('EXPIRE', job, math.max(ttl, 60))
  elseif ttl == 0 and answer ~= 'failed' then redis.call('HSET', job, 'rqscan_delete', 1)
  elseif ttl == 0 then redis.call('DEL', job) end
end

-- Take an attempt (JOB:TOKEN) from its worker and put the job back to the front of its queue. With
-- `most` the worker is dead: that counts, and at the loss `most` the job is given up.
local function release(pair, worker, most, s, at, given_up)
  local id, token = string.match(pair, '^(.*):([^:]+)$')
  if not id then return end  -- whatever may have been written there
  local job = 'rq:job:' .. id
  local queue = redis.call('HGET', job, 'origin')
  redis.call('DEL', 'rq:execution:' .. pair)
  redis.call('ZREM', 'rq:executions:' .. id, token)
  if not queue then return end
  redis.call('ZREM', 'rq:wip:' .. queue, pair)
  if redis.call('HGET', job, 'rqscan_token') ~= token then return end
  redis.call('HSET', job, 'rqscan_token', '')
  if most then
    local losses = redis.call('HINCRBY', job, 'rqscan_host_losses', 1)
    note_loss(job, at, 'worker ' .. worker .. ' was gone')
    redis.call('HINCRBY', 'rqscan:counters', 'lost', 1)
    if losses >= most then
      give_up(job, id, queue, losses, worker, s, at, given_up)
      return
    end
  end
  redis.call('HSET', job, 'status', 'queued', 'enqueued_at', at)
  redis.call('LPUSH', 'rq:queue:' .. queue, id)
  redis.call('HINCRBY', 'rqscan:counters', 'rescued', 1)
  ring('rqscan:bell:' .. queue)
end
