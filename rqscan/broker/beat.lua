-- Say that a worker lives: write all that the fleet knows of it, renew the leases that it holds.
-- KEYS 1 worker hash, 2 set of workers, 3 worker executions, 4 presence, 5 record, 6 holders,
--      7 sweeper, 8 last beat, 9 grace, 10 served, 11 paused, 12 suspended, 13 store, 14 marker,
--      15 look at the plan, 16 deputy, 17.. sets of workers of its queues
-- ARGV 1 name, 2 epoch, 3 registry lease (s), 4 record (JSON), 5 gap (s) of an outage, 6 grace
--      (ms) after it, 7 sweeper's lease (ms), 8 1 for the first beat of an epoch, 9 store id (empty:
--      not known yet), 10 protocol, 11 run id of the server, 12 names of its queues by commas,
--      13 number of fields, 14 most losses of a job by deaths of workers and hosts, fields of the
--      worker's hash, then queue name, job id and token of each job held
-- Returns {Redis time (s), role, suspended (0, 1), what to do about the plan, the fleet's store id,
--         its protocol, queues that may run (none for a follower), {job id, attempt, error of each
--         job given up...}, tokens that are no longer its own...}; or
--         {'displaced'}: another worker has begun under this name, nothing was written.
--         role: sweeper; deputy (to sweep as soon as the sweeper does not); quiet (the sweeper, and
--         there is nothing to rescue); or follower. About the plan: compare (the server was begun
--         anew), look (for what was planned and never enqueued), or nothing.
-- Everything is written each time: a worker comes back by itself after a flush.
local lease, nfields = tonumber(ARGV[3]), tonumber(ARGV[13])
local s, us = now()
local at, f = iso(s, us), s + us / 1e6
-- Only the first beat of an epoch takes a name over; of two that began at once the later stays. One
-- that comes late over a connection which its own worker has given up since is of no account.
local epoch = redis.call('HGET', KEYS[1], 'rqscan_epoch')
local is_late = epoch and string.sub(epoch, 1, 8) == string.sub(ARGV[2], 1, 8) and epoch > ARGV[2]
if is_late or (ARGV[8] == '0' and epoch and epoch ~= ARGV[2]) then return {'displaced'} end
-- A worker that has said goodbye stays readable for a minute, as RQ has it; its counts end here.
if redis.call('HEXISTS', KEYS[1], 'death') == 1 then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'last_heartbeat', at, 'rqscan_epoch', ARGV[2],
  unpack(ARGV, 15, 14 + nfields))
redis.call('EXPIRE', KEYS[1], 90)
redis.call('SADD', KEYS[2], KEYS[1])
for i = 17, #KEYS do redis.call('SADD', KEYS[i], KEYS[1]) end
for queue in string.gmatch(ARGV[12], '[^,]+') do redis.call('ZADD', KEYS[10], f, queue) end
redis.call('ZADD', KEYS[4], f, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', f - 3600)
redis.call('SET', KEYS[5], ARGV[4], 'EX', 3600)
redis.call('ZADD', KEYS[6], f, ARGV[1])
if f - tonumber(redis.call('GET', KEYS[8]) or '0') > tonumber(ARGV[5]) then
  redis.call('SET', KEYS[9], '1', 'PX', ARGV[6])
end
redis.call('SET', KEYS[8], f)
local store, protocol = unpack(redis.call('HMGET', KEYS[13], 'store_id', 'protocol'))
local is_ours = is_of_fleet(KEYS[13], ARGV[9], ARGV[10])
local function is_quiet()
  if redis.call('ZCOUNT', KEYS[6], '-inf', f - ARGV[5]) > 0 then return false end
  for _, key in ipairs(redis.call('SMEMBERS', 'rq:queues')) do
    local wip = 'rq:wip:' .. string.sub(key, #'rq:queue:' + 1)
    if redis.call('ZCARD', wip) > 0 then return false end
  end
  return true
end

local role, open = 'follower', {}
local to_next_beat, quiet = math.floor(1000 * ARGV[5]), is_quiet()
if is_ours and holds(KEYS[7], ARGV[1], quiet and to_next_beat or ARGV[7]) then
  if redis.call('GET', KEYS[16]) == ARGV[1] then redis.call('DEL', KEYS[16]) end
  role = quiet and 'quiet' or 'sweeper'
  open = tend(KEYS[10], KEYS[11], KEYS[12], s, f, at)
elseif is_ours and holds(KEYS[16], ARGV[1], to_next_beat) and not quiet then
  role = 'deputy'
end
-- One worker of a store looks at its plan when the server is another or was begun anew; and each
-- minute, or when it is back after an outage, for scans that nobody has enqueued.
local plan = ''
if is_ours and ARGV[9] ~= '' then
  local look_ms = redis.call('PTTL', KEYS[15])
  if look_ms < (ARGV[8] == '1' and 57000 or 0) then
    redis.call('SET', KEYS[15], ARGV[1], 'PX', 60000)
    plan = redis.call('HGET', KEYS[14], ARGV[9]) == ARGV[11] and 'look' or 'compare'
  end
end

local given_up = {}
local out, held = {string.format('%.6f', f), role, redis.call('EXISTS', KEYS[12]), plan,
  store or '', protocol or '', open, given_up}, {}
for i = 15 + nfields, #ARGV, 3 do
  local id, token = ARGV[i + 1], ARGV[i + 2]
  local pair = id .. ':' .. token
  held[pair] = true
  local holder = redis.call('HGET', 'rq:job:' .. id, 'rqscan_token')
  if holder == token then
    redis.call('ZADD', 'rq:wip:' .. ARGV[i], f + lease, pair)
    redis.call('ZADD', 'rq:executions:' .. id, s + lease, token)
    redis.call('HSET', 'rq:execution:' .. pair, 'last_heartbeat', f)
    redis.call('HSET', 'rq:job:' .. id, 'last_heartbeat', at)
    redis.call('SADD', KEYS[3], pair)
  elseif holder ~= 'done:' .. token then out[#out + 1] = token end
end
-- What runs under this name but is not held: an earlier life's, which has died, or a claim's whose
-- answer was lost; tokens begin with the life that they are of.
for _, pair in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  if not held[pair] then
    redis.call('SREM', KEYS[3], pair)
    local life = string.match(pair, ':([^:]+)$') or ''
    local has_died = string.sub(life, 1, 8) ~= string.sub(ARGV[2], 1, 8)
    release(pair, ARGV[1], has_died and tonumber(ARGV[14]), s, at, given_up)
  end
end
return out
