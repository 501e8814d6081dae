-- Count chunks that have ended by the store's word; those that were counted change nothing.
-- ARGV 1 scan, then number, how (done, failed), observations and probes of each chunk
-- Returns how many were counted now.
local s, us = now()
local counted = 0
for i = 2, #ARGV, 4 do
  local number, how, observations, probes = unpack(ARGV, i, i + 3)
  if count_end(ARGV[1], tonumber(number), iso(s, us), how, observations, probes) then
    counted = counted + 1
  end
end
return counted
