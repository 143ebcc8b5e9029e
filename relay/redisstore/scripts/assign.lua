-- Says who owns a card, by the operator's word.
--
-- KEYS[1] owner of the card (hash: user, at, op)
-- KEYS[2] the card's live challenges
-- KEYS[3] the stream of inner steps
-- ARGV[1] user, or "" to forget the owner
-- ARGV[2] now, ms
-- ARGV[3] the inner step that gives the user the card's challenges; it is owed
--         only if there are any: a million cards may be assigned in one go
--
-- Returns 1 if it was owed.

redis.call('DEL', KEYS[1])
if ARGV[1] == '' then
  return 0
end
redis.call('HSET', KEYS[1], 'user', ARGV[1], 'at', ARGV[2], 'op', '1')
if redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
redis.call('XADD', KEYS[3], '*', 'd', ARGV[3])
return 1
