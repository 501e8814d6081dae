-- What beats and sweeps do for jobs that nobody runs: put them back, or into their queue when due.

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
