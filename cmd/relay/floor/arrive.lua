-- KEYS: duplicate memory, event, events by time, queue
-- ARGV: id, how long it is remembered (ms), now (ms), type, body
-- Returns 1, or 0 for a duplicate.
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[2], 'type', ARGV[4], 'at', ARGV[3], 'body', ARGV[5])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
redis.call('XADD', KEYS[4], '*', 'i', ARGV[1], 't', ARGV[4], 'd', ARGV[5])
return 1
