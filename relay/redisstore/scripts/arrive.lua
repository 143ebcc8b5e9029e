-- An event arrives. Knows two rules: content that was seen before is a
-- duplicate, and a challenge replaces a pending one of the same card and
-- reference. Besides, it resolves the card's owner, which only this partition
-- knows, so that an arrival is one round trip.
--
-- It looks for what the challenge replaces among the holder's newest 256 that live:
-- a card that is flooded must not make every arrival slower than the one before.
-- What is replaced later than that stays, until it expires.
--
-- KEYS[1] duplicate memory of the content and others (hash: fingerprint, the first
--         event's id without its prefix; and "until", the time part of the first
--         id that is too late for this hash)
-- KEYS[2] owner of the card (hash: user, at, op)
-- KEYS[3] the challenge's record
-- KEYS[4] the holder's live challenges (by creation)
-- KEYS[5] the stream of inner steps
-- KEYS[6] what is due later
-- KEYS[7] the older duplicate memory, which KEYS[1] becomes
-- KEYS[8…] the keys of the commands
--
-- ARGV[1] event id
-- ARGV[2] how long the content is remembered, ms; "0": not at all
-- ARGV[3] "1" if the event names a card
-- ARGV[4] the user it names, or ""
-- ARGV[5] when it happened, ms, if it teaches that the user owns the card; or ""
-- ARGV[6] the inner step that indexes the lesson
-- ARGV[7] challenge id, or "" if there is none
-- ARGV[8] its record without the header
-- ARGV[9] the record's life, ms
-- ARGV[10] when it was created, ms
-- ARGV[11] mark of its reference, "-" for none
-- ARGV[12] when it expires, ms; "" if it has ended already
-- ARGV[13] channel of changes
-- ARGV[14] merchant
-- ARGV[15] the holder's ended challenges, without the user that ends the key.
--          It carries KEYS[1]'s hash tag, but is known only here.
-- ARGV[16] "1" if ARGV[5] is but when it arrived: then it teaches only whose a
--          card is that nobody is known to own
-- ARGV[17] fingerprint of the content
-- ARGV[18] the time part of the oldest id that is remembered
-- ARGV[19] "until" of a memory that begins now
-- ARGV[20…] commands, see commands.lua
--
-- Returns {event id, 1 if it is a duplicate (then the first one's id), owner,
-- 1 if the owner was not known before, {lane, its entries} of each lane read}.

local id, user, challenge, learnt = ARGV[1], ARGV[4], ARGV[7], 0

if ARGV[2] ~= '0' then
  local mine = string.sub(id, 5)
  local known = redis.call('HMGET', KEYS[1], ARGV[17], 'until')
  local first = known[1] or redis.call('HGET', KEYS[7], ARGV[17])
  if first and first > ARGV[18] then
    return {'evt_' .. first, 1, '', 0, {}}
  end
  if known[2] and mine > known[2] then
    redis.call('RENAME', KEYS[1], KEYS[7])
    known[2] = false
  end
  if known[2] then
    redis.call('HSET', KEYS[1], ARGV[17], mine)
  else
    redis.call('HSET', KEYS[1], ARGV[17], mine, 'until', ARGV[19])
    redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2])
  end
end

if ARGV[3] == '1' then
  local known = redis.call('HMGET', KEYS[2], 'user', 'at', 'op')
  local owner = known[1]
  local taught = ARGV[5] ~= '' and not known[3] and (not owner or ARGV[16] == '' and tonumber(ARGV[5]) > tonumber(known[2]))
  if taught then
    redis.call('HSET', KEYS[2], 'user', user, 'at', ARGV[5])
  end
  if owner and (known[3] or user == '') then
    user = owner
  end
  if owner ~= user and (taught or (challenge ~= '' and user ~= '')) then
    redis.call('XADD', KEYS[5], '*', 'd', ARGV[6])
    learnt = 1
  end
end

if challenge ~= '' then
  redis.call('SET', KEYS[3], '1\t' .. user .. '\n' .. ARGV[8], 'PX', ARGV[9])
  if ARGV[12] ~= '' then
    local announce = 'announce ' .. challenge
    if ARGV[11] ~= '-' then
      for _, member in ipairs(redis.call('ZRANGE', KEYS[4], -256, -1)) do
        local other, mark = string.match(member, '^(%S+) (%S+)$')
        if mark == ARGV[11] then
          announce = announce .. ' ' .. other
        end
      end
    end
    redis.call('ZADD', KEYS[4], ARGV[10], challenge .. ' ' .. ARGV[11])
    redis.call('PEXPIRE', KEYS[4], ARGV[9])
    redis.call('ZADD', KEYS[6], ARGV[12], 'x' .. string.sub(challenge, 5))
    redis.call('XADD', KEYS[5], '*', 'd', announce)
  else
    rank(ARGV[15] .. user, ARGV[10], challenge .. ' late', string.format('%.0f', ARGV[10] - ARGV[9]), ARGV[9])
  end
  if user ~= '' then
    redis.call('PUBLISH', ARGV[13], ARGV[14] .. '\t' .. user .. '\t' .. challenge)
  end
end

return {id, 0, user, learnt, run(20, 8)}
