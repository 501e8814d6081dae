-- End one attempt: its lease goes, and the job is finished, failed, or waits for another attempt.
-- KEYS 1 job, 2 queue, 3 started registry, 4 finished registry, 5 failed registry, 6 worker hash,
--      7 worker executions, 8 results, 9 bell, 10 counters, 11 scheduled registry
-- ARGV 1 id, 2 token, 3 disposition (finished, failed, stopped, giveback, retry; lost: its horse
--      died; displaced: its horse died with the template), 4 result ttl (s), 5 failure ttl (s),
--      6 seconds worked, 7 queue name, 8 losses from which it fails, 9 observations, 10 probes,
--      11 refused (0, 1), 12 delay of a retry (s), 13 most failures that are tried again,
--      14 repeated after that delay though it is finished (0, 1), 15 then at the front (0, 1),
--      16 observations that are spooled, 17 number of fields, then job fields, then fields of the
--      result
-- Returns what the job is now: finished, failed, stopped, queued (lost, displaced, given back) or
--      scheduled (to be tried again), also if this attempt's end was recorded before; or
--      fenced (a later attempt holds the job), gone (no such job); or
--      {that, the end to be followed up: finished, failed, stopped, canceled (while it ran), retry}.
local id, token, how = ARGV[1], ARGV[2], ARGV[3]
local pair = id .. ':' .. token
redis.call('ZREM', KEYS[3], pair)
redis.call('DEL', 'rq:execution:' .. pair)
redis.call('ZREM', 'rq:executions:' .. id, token)
redis.call('SREM', KEYS[7], pair)
local asks = asks_of(KEYS[1])
local holder = asks.rqscan_token
if not holder and redis.call('EXISTS', KEYS[1]) == 0 then return 'gone' end
-- A finish that reached a frozen server after our time-out is applied, then sent again.
if holder == 'done:' .. token then return asks.status end
if holder ~= token then
  redis.call('HINCRBY', KEYS[10], 'fenced', 1)
  return 'fenced'
end

local s, us = now()
local at = iso(s, us)
local delay_s, nfields = tonumber(ARGV[12]), tonumber(ARGV[17])
local changes = {'rqscan_token', 'done:' .. token, 'last_heartbeat', at, unpack(ARGV, 18, 17 + nfields)}

local function change(...)
  for _, part in ipairs({...}) do changes[#changes + 1] = part end
  redis.call('HSET', KEYS[1], unpack(changes))
  changes = {}
end

local function keep_result(ttl)
  if #ARGV == 17 + nfields or ttl == 0 then return end
  -- A new stream takes 4 kB for its first entry, whatever that holds (Redis' t_stream.c,
  -- STREAM_LISTPACK_MAX_PRE_ALLOCATE); a copy takes what it needs.
  redis.call('XADD', 'rqscan:result', 'MAXLEN', '1', '*', unpack(ARGV, 18 + nfields))
  if redis.call('COPY', 'rqscan:result', KEYS[8]) == 0 then  -- of an earlier attempt
    redis.call('XADD', KEYS[8], 'MAXLEN', '~', '10', '*', unpack(ARGV, 18 + nfields))
  end
  redis.call('DEL', 'rqscan:result')
  if ttl > 0 then redis.call('EXPIRE', KEYS[8], ttl) else redis.call('PERSIST', KEYS[8]) end
end

local function queue_again(push)
  if delay_s > 0 then
    change('status', 'scheduled')
    redis.call('ZADD', KEYS[11], s + us / 1e6 + delay_s, id)
    return 'scheduled'
  end
  change('status', 'queued', 'enqueued_at', at)
  redis.call(push, KEYS[2], id)
  ring(KEYS[9])
  return 'queued'
end

if how == 'failed' then
  -- A loss is no failure: it uses up no retry.
  local failures = redis.call('HINCRBY', KEYS[1], 'rqscan_failures', 1)
  if failures <= tonumber(ARGV[13]) then how = 'retry' end
elseif how == 'lost' or how == 'displaced' then
  change()
  note_loss(KEYS[1], at, redis.call('HGET', KEYS[1], 'rqscan_loss') or '')
  redis.call('HINCRBY', KEYS[10], 'lost', 1)
  local losses = how == 'lost' and 'rqscan_lost' or 'rqscan_host_losses'
  if redis.call('HINCRBY', KEYS[1], losses, 1) >= tonumber(ARGV[8]) then how = 'failed'
  else redis.call('HINCRBY', KEYS[10], 'rescued', 1) end
end

-- A queue that was at its limit has a place again.
if redis.call('EXISTS', KEYS[2]) == 1 then ring(KEYS[9]) end
local push = ARGV[15] == '1' and 'LPUSH' or 'RPUSH'
if how == 'retry' then
  redis.call('HINCRBY', KEYS[6], 'failed_job_count', 1)
  redis.call('HINCRBYFLOAT', KEYS[6], 'total_working_time', ARGV[6])
  change('ended_at', at)
  keep_result(tonumber(ARGV[5]))
  return with_follow_up(KEYS[1], id, how, s, queue_again(push), asks)
end
if how == 'lost' or how == 'displaced' or how == 'giveback' then
  delay_s = 0
  return queue_again('LPUSH')
end

local is_done = how == 'finished'
local ttl = tonumber(is_done and ARGV[4] or ARGV[5])
redis.call('HINCRBY', KEYS[6], is_done and 'successful_job_count' or 'failed_job_count', 1)
redis.call('HINCRBYFLOAT', KEYS[6], 'total_working_time', ARGV[6])
count(s, ARGV[7] .. ':out')
if not is_done then count(s, ARGV[7] .. ':failed') end
if ARGV[11] == '1' then redis.call('HINCRBY', KEYS[10], 'refused', 1) end

local scan = asks.rqscan_scan
if scan then
  local ended = is_done and 'done' or 'failed'
  count_end(scan, number_of(KEYS[1], scan), at, ended, ARGV[9], ARGV[10], ARGV[16])
end
local answer = with_follow_up(KEYS[1], id, how, s, how, asks)
change('status', how, 'ended_at', at)
keep_result(ttl)
if ttl ~= 0 then
  redis.call('ZADD', is_done and KEYS[4] or KEYS[5], ttl > 0 and s + ttl or '+inf', id)
end
local of_dependencies = 'rq:job::' .. id .. ':dependencies'
if is_done and ARGV[14] == '1' then
  count(s, ARGV[7] .. ':in')
  queue_again(push)
elseif ttl > 0 then
  local least = answer == how and ttl or math.max(ttl, 60)
  redis.call('EXPIRE', KEYS[1], least)
  if not scan then redis.call('EXPIRE', of_dependencies, least) end
elseif ttl == 0 and answer ~= how then redis.call('HSET', KEYS[1], 'rqscan_delete', 1)
elseif ttl == 0 then
  local group = asks.group_id
  if group and group ~= '' then redis.call('SREM', 'rq:group:' .. group, id) end
  redis.call('DEL', KEYS[1], KEYS[8], of_dependencies)
end
return answer
