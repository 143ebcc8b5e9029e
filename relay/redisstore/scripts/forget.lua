-- Drops the oldest entries of a lane that nobody reads, and the lane when nothing
-- is left of it.
--
-- KEYS[1] the lane's stream
-- KEYS[2] the partition's counters of what is owed
-- ARGV[1] from this time on entries stay, ms
-- ARGV[2] lane
--
-- Returns how many were dropped.

local dropped = redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
local owed = redis.call('HINCRBY', KEYS[2], ARGV[2], 0 - dropped)
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1])
  if owed <= 0 then
    redis.call('HDEL', KEYS[2], ARGV[2])
  end
end
return dropped
