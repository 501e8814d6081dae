-- Rescue the jobs of workers that are gone: each goes back to the front of its queue.
-- KEYS 1 sweeper, 2 holders, 3 grace, 4 set of workers, 5 served, 6 paused, 7 suspended, 8 last beat
-- ARGV 1 name, 2 sweeper's lease (ms), 3 suspect after (s), 4 lost after (s), 5 most losses of a
--      job by deaths of workers and hosts, 6 registry lease (s), 7 gap (s) of an outage, 8.. workers whose
--      connection is gone
-- Returns {'deposed'}: another one sweeps, which a deputy expects; or
--         {'ok', workers rescued from, {job id, attempt, error of each job given up...}, then name
--         and client id of each suspect...}.
-- A suspect's beat is overdue; it is lost once its lease has lapsed or its connection is gone.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {'deposed'} end
local s, us = now()
local at, f = iso(s, us), s + us / 1e6
tend(KEYS[5], KEYS[6], KEYS[7], s, f, at)
local out = {'ok', 0, {}}
if redis.call('EXISTS', KEYS[3]) == 1 then return out end
-- The sweeper beats as well: if even its own beats are refused, as without memory, nobody is dead.
if f - tonumber(redis.call('GET', KEYS[8]) or '0') > tonumber(ARGV[7]) then return out end
local gone, most = {}, tonumber(ARGV[5])
for i = 8, #ARGV do gone[ARGV[i]] = true end

local function rescue(worker)
  local executions = 'rq:worker:' .. worker .. ':executions'
  for _, pair in ipairs(redis.call('SMEMBERS', executions)) do release(pair, worker, most, s, at, out[3]) end
  local hash = 'rq:worker:' .. worker
  for queue in string.gmatch(redis.call('HGET', hash, 'queues') or '', '[^,]+') do
    redis.call('SREM', 'rq:workers:' .. queue, hash)
  end
  redis.call('SREM', KEYS[4], hash)
  redis.call('DEL', executions, hash)
  redis.call('ZREM', KEYS[2], worker)
  out[2] = out[2] + 1
end

for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', f - tonumber(ARGV[3]))) do
  if f - tonumber(redis.call('ZSCORE', KEYS[2], worker)) > tonumber(ARGV[4]) or gone[worker] then
    rescue(worker)
  else
    out[#out + 1] = worker
    out[#out + 1] = redis.call('HGET', 'rq:worker:' .. worker, 'rqscan_client') or '0'
  end
end
for _, pair in ipairs(unheld(f, tonumber(ARGV[6]), tonumber(ARGV[4]))) do
  local job = 'rq:job:' .. string.match(pair, '^(.*):')
  local worker = redis.call('HGET', job, 'worker_name') or ''
  redis.call('SREM', 'rq:worker:' .. worker .. ':executions', pair)
  release(pair, worker, most, s, at, out[3])
end
return out
