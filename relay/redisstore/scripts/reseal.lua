-- Replaces a record by the same one under another key, if it is still what was
-- read: a newer state must never be followed by an older one.
--
-- KEYS[1] the record
--
-- ARGV[1] what was read
-- ARGV[2] what it becomes; its time to live stays
--
-- Returns 1, or 0 if the record has changed or gone.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
