-- Tell what is known of chunks.
-- ARGV 1 scan, then number and generation of each chunk
-- Returns for each the status of its job, false if there is none, and whether its end is counted.
local found = {}
for i = 2, #ARGV, 2 do
  local job = 'rq:job:' .. ARGV[1] .. '-' .. ARGV[i] .. '-' .. ARGV[i + 1]
  found[#found + 1] = redis.call('HGET', job, 'status')
  found[#found + 1] = redis.call('GETBIT', 'rqscan:scan:' .. ARGV[1] .. ':ended', ARGV[i])
end
return found
