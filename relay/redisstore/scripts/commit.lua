-- One atomic step: compares a version, passes a gate, runs commands. It knows no
-- rules; they were decided in Go.
--
-- The gate comes before the writes because it deletes: a script that begins by
-- deleting is not refused when Redis is out of memory, so what was sent can
-- always be settled.
--
-- KEYS[1] the record whose version is compared (begins with it, then a tab)
-- KEYS[2…] that of the gate, if there is one, and those of the commands
--
-- ARGV[1] the expected version; "0": no record; "": not compared
-- ARGV[2] number of words of the gate; "0": none
-- …       the gate: a command, without its key, that must not answer 0 (XACK, ZREM)
-- …       commands, see commands.lua
--
-- Returns {"ok", "conflict" (other version) or "lost" (the gate answered 0), {lane,
-- its entries} of each lane read}.

if ARGV[1] ~= '' then
  local version = string.match(redis.call('GETRANGE', KEYS[1], 0, 11), '^(%d+)\t') or '0'
  if version ~= ARGV[1] then
    return {'conflict', {}}
  end
end

local i, k, n = 3, 2, tonumber(ARGV[2])
if n > 0 then
  if redis.call(ARGV[3], KEYS[2], unpack(ARGV, 4, n + 2)) == 0 then
    return {'lost', {}}
  end
  i, k = n + 3, 3
end
return {'ok', run(i, k)}
