-- Put jobs into a queue as their hashes and ids, as RQ has them.
-- ARGV 1 queue, 2 scan, 3 number of the first, 4 how many, 5 time, 6.. fields that all have
local queue, scan, first, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local ids = {}
for n = first, first + most - 1 do
  local id = scan .. '-' .. n .. '-1'
  redis.call('HSET', 'rq:job:' .. id, 'description',
    'ports 10.' .. math.floor(n / 65536) .. '.' .. math.floor(n / 256) % 256 .. '.' .. n % 256,
    'status', 'queued', 'created_at', ARGV[5], 'enqueued_at', ARGV[5], unpack(ARGV, 6))
  ids[#ids + 1] = id
  if #ids == 1000 or n == first + most - 1 then
    redis.call('RPUSH', 'rq:queue:' .. queue, unpack(ids))
    ids = {}
  end
end
