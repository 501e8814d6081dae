-- Take up to `want` jobs from the queues, in their order of priority, each under a lease.
-- KEYS 1 worker hash, 2 worker executions, 3 suspended, 4 paused, 5 store, 6.. n queues, then n bells
-- ARGV 1 worker name, 2 epoch, 3 want, 4 registry lease (s), 5 store id, 6 protocol, 7 n,
--      then n most-running-at-once (0: no limit), n queue names, `want` tokens
-- Returns {'epoch'}: register again, nothing was taken; or
--         {'ok', {queue number, job id, token, attempt, fields of the job's hash}, ...}.
-- RQ's records of what runs have no time to live: finish, beat and sweep take them out.
-- A claim that lay in a frozen server's buffer while its worker began anew has an old epoch.
if redis.call('HGET', KEYS[1], 'rqscan_epoch') ~= ARGV[2]
  or not is_of_fleet(KEYS[5], ARGV[5], ARGV[6]) then return {'epoch'} end
local want, lease, n = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[7])
local s, us = now()
local at, f = iso(s, us), s + us / 1e6
local out, got = {'ok'}, 0

local function take(i, id)
  local job = 'rq:job:' .. id
  local status = redis.call('HGET', job, 'status')
  if not status or status == 'canceled' or status == 'stopped' or status == 'finished' then
    return
  end
  got = got + 1
  local token = ARGV[7 + 2 * n + got]
  local name = ARGV[7 + n + i]
  local pair = id .. ':' .. token
  local attempt = redis.call('HINCRBY', job, 'rqscan_attempt', 1)
  redis.call('HSET', job, 'status', 'started', 'started_at', at, 'last_heartbeat', at,
    'worker_name', ARGV[1], 'rqscan_token', token)
  redis.call('PERSIST', job)
  redis.call('HSET', 'rq:execution:' .. pair, 'id', token, 'job_id', id, 'created_at', f,
    'last_heartbeat', f, 'worker_name', ARGV[1])
  redis.call('ZADD', 'rq:executions:' .. id, s + lease, token)
  redis.call('ZADD', 'rq:wip:' .. name, f + lease, pair)
  redis.call('SADD', KEYS[2], pair)
  local scan = redis.call('HGET', job, 'rqscan_scan')
  -- A progress that has expired stays so: a requeued job of an old scan counts for nothing.
  if scan and redis.call('EXISTS', 'rqscan:scan:' .. scan) == 1 then
    redis.call('HSETNX', 'rqscan:scan:' .. scan, 'started_at', at)
  end
  out[#out + 1] = {i, id, token, attempt, redis.call('HGETALL', job)}
end

local suspended = redis.call('EXISTS', KEYS[3]) == 1
local function may_run(i)
  local most = tonumber(ARGV[7 + i])
  return not suspended and redis.call('SISMEMBER', KEYS[4], ARGV[7 + n + i]) == 0
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
if got > 0 then redis.call('HSET', KEYS[1], 'state', 'busy') end
return out
