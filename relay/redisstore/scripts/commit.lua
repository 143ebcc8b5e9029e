-- One atomic step: compares a version, passes a gate, runs commands. It knows no
-- rules; they were decided in Go.
--
-- The gate comes before the writes because it deletes: a script that begins by
-- deleting is not refused when Redis is out of memory, so what was sent can
-- always be settled.
--
-- KEYS[1] the record whose version is compared (begins with it, then a tab)
-- KEYS[2…] all other keys
--
-- ARGV[1] the expected version; "0": no record; "": not compared
-- ARGV[2] number of words of the gate; "0": none
-- …       the gate: a command that must not answer 0 (XACK, ZREM)
-- …       commands: number of words, words…
--
-- Returns "ok", "conflict" (other version) or "lost" (the gate answered 0).

if ARGV[1] ~= '' then
  local version = string.match(redis.call('GETRANGE', KEYS[1], 0, 11), '^(%d+)\t') or '0'
  if version ~= ARGV[1] then
    return 'conflict'
  end
end

local i = 2
local n = tonumber(ARGV[i])
if n > 0 and redis.call(unpack(ARGV, i + 1, i + n)) == 0 then
  return 'lost'
end
i = i + n + 1

local call, last = redis.call, #ARGV
while i <= last do
  n = tonumber(ARGV[i])
  call(unpack(ARGV, i + 1, i + n))
  i = i + n + 1
end
return 'ok'
