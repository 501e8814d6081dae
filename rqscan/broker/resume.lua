-- Let a paused queue be claimed from again: its bell has been silent.
-- KEYS 1 paused, 2 queue, 3 bell
-- ARGV 1 queue name
-- Returns 1 if it was paused, else 0.
local was_paused = redis.call('SREM', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[2]) == 1 then ring(KEYS[3]) end
return was_paused
