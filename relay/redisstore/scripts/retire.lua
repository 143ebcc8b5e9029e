-- Removes a consumer from a lane's group, unless it has been handed something.
--
-- KEYS[1] the lane's stream
-- ARGV[1] group
-- ARGV[2] consumer
--
-- Returns 1 if it is gone. A lane that has no group is no error.

local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if pending.err then
  return 1
end
if #pending > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
