-- Makes a lane's group, from the beginning: what was owed before is delivered, too.
-- Deletes nothing before it adds, so that a node that starts when Redis is out of
-- memory can still drain it.
--
-- KEYS[1] the lane's stream
-- ARGV[1] group

redis.call('XDEL', KEYS[1], '0-0')
return redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
