-- What the end of a job entails, whoever puts it down.

-- Keep how a job was lost, a line each; the limits of losses keep them few.
local function note_loss(job, at, how)
  local before = redis.call('HGET', job, 'rqscan_losses') or ''
  redis.call('HSET', job, 'rqscan_losses', before .. at .. ' ' .. how .. '\n')
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
