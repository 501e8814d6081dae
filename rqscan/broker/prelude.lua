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

-- Tell whether a worker's store and protocol are those of the fleet; who enqueues sets them.
-- A worker that knows of a mismatch says `?`, so that a Redis that has lost all does not trust it.
local function is_of_fleet(key, store, protocol)
  if store == '?' then return false end
  local theirs = redis.call('HMGET', key, 'store_id', 'protocol')
  return (not theirs[1] or store == theirs[1]) and (not theirs[2] or protocol == theirs[2])
end
