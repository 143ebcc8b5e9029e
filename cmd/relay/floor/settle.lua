-- KEYS: queue, what is done
-- ARGV: group, entry, id, outcome
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], '*', 'i', ARGV[3], 'o', ARGV[4])
return 1
