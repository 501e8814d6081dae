-- Take up to `want` jobs from the queues, in their order of priority, each under a lease.
-- KEYS 1 worker hash, 2 worker executions, 3 suspended, 4 paused, 5 store, 6.. n queues, then n bells
-- ARGV 1 worker name, 2 epoch, 3 want, 4 registry lease (s), 5 store id, 6 protocol, 7 n,
--      then n most-running-at-once (0: no limit), n queue names, `want` tokens
-- Returns {'epoch'}: register again, nothing was taken; or
--         {'ok', {queue number, job id, token, attempt, fields of the job's hash}, ...}.
-- RQ's records of what runs have no time to live: finish, beat and sweep take them out.
-- A claim that lay in a frozen server's buffer while its worker began anew has an old epoch.
local epoch, state = unpack(redis.call('HMGET', KEYS[1], 'rqscan_epoch', 'state'))
if epoch ~= ARGV[2] or not is_of_fleet(KEYS[5], ARGV[5], ARGV[6]) then return {'epoch'} end
local want, lease, n = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[7])
local s, us = now()
local at, f = iso(s, us), string.format('%d.%06d', s, us)
local out, got = {'ok'}, 0

-- All that a chunk's work-horse needs of its job's hash; any other gets the whole hash.
local WANTED = {'status', 'rqscan_kind', 'rqscan_scan', 'rqscan_attempt', 'rqscan_failures', 'data',
  'timeout', 'result_ttl', 'failure_ttl'}

local function take(i, id)
  local job = 'rq:job:' .. id
  local pairs_of_job, known = {}, {}
  for k, value in ipairs(redis.call('HMGET', job, unpack(WANTED))) do
    known[WANTED[k]] = value
    if value then
      pairs_of_job[#pairs_of_job + 1] = WANTED[k]
      pairs_of_job[#pairs_of_job + 1] = value
    end
  end
  local status = known.status
  if not status or status == 'canceled' or status == 'stopped' or status == 'finished' then
    count(s, ARGV[7 + n + i] .. ':gone')
    return
  end
  got = got + 1
  local token = ARGV[7 + 2 * n + got]
  local name = ARGV[7 + n + i]
  local pair = id .. ':' .. token
  local attempt = (tonumber(known.rqscan_attempt) or 0) + 1
  local changes = {'status', 'started', 'started_at', at, 'last_heartbeat', at,
    'worker_name', ARGV[1], 'rqscan_token', token, 'rqscan_attempt', attempt}
  redis.call('HSET', job, unpack(changes))
  redis.call('PERSIST', job)
  redis.call('HSET', 'rq:execution:' .. pair, 'id', token, 'job_id', id, 'created_at', f,
    'last_heartbeat', f, 'worker_name', ARGV[1])
  redis.call('ZADD', 'rq:executions:' .. id, s + lease, token)
  redis.call('ZADD', 'rq:wip:' .. name, string.format('%d.%06d', s + lease, us), pair)
  redis.call('SADD', KEYS[2], pair)
  if known.rqscan_scan then
    local progress = 'rqscan:scan:' .. known.rqscan_scan
    local total, started = unpack(redis.call('HMGET', progress, 'total', 'started_at'))
    -- A progress that has expired stays so: a requeued job of an old scan counts for nothing.
    if total and not started then redis.call('HSET', progress, 'started_at', at) end
  end
  if (known.rqscan_kind or '') == '' then
    pairs_of_job = redis.call('HGETALL', job)
    -- RQ's own calls count nothing that they enqueue.
    if attempt == 1 then count(s, name .. ':in') end
  end
  out[#out + 1] = {i, id, token, attempt, pairs_of_job}
end

local suspended = redis.call('EXISTS', KEYS[3]) == 1
local any_paused = redis.call('EXISTS', KEYS[4]) == 1
local function may_run(i)
  local most = tonumber(ARGV[7 + i])
  return not suspended
    and not (any_paused and redis.call('SISMEMBER', KEYS[4], ARGV[7 + n + i]) == 1)
    and (most == 0 or redis.call('ZCARD', 'rq:wip:' .. ARGV[7 + n + i]) < most)
end

for i = 1, n do
  while got < want and may_run(i) do
    local id = redis.call('LPOP', KEYS[5 + i])
    if not id then break end
    take(i, id)
  end
end
-- Each claim hands the bell on: rung while there is work that may run, else silent.
for i = 1, n do
  if redis.call('EXISTS', KEYS[5 + i]) == 1 and may_run(i) then ring(KEYS[5 + n + i])
  else redis.call('DEL', KEYS[5 + n + i]) end
end
if got > 0 and state ~= 'busy' then redis.call('HSET', KEYS[1], 'state', 'busy')
elseif got == 0 and state == 'busy' and redis.call('SCARD', KEYS[2]) == 0 then
  redis.call('HSET', KEYS[1], 'state', 'idle')
end
return out
