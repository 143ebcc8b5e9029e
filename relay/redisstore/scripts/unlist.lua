-- Forgets a node, unless it has beaten again.
--
-- KEYS[1] the nodes by their last heartbeat
-- ARGV[1] node
-- ARGV[2] its last heartbeat, as it was read
--
-- Returns 1 if it is gone.

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then
  return 0
end
return redis.call('ZREM', KEYS[1], ARGV[1])
