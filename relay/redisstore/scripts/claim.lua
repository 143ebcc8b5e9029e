-- Says whose an endpoint is, if nobody has said so since, and drops some of what the
-- hash has held for too long.
--
-- KEYS[1] hash of claims: fingerprint, the claim (begins with its version and a tab,
--         ends with a tab and the time at which it is forgotten, s)
-- KEYS[2] where an older version kept the claim
-- ARGV[1] fingerprint
-- ARGV[2] the expected version; "0": no claim
-- ARGV[3] the claim
-- ARGV[4] now, s
-- ARGV[5] how long claims are kept at most, ms
--
-- Returns 1, or 0 if the version is another. Removes before it adds, so that it
-- works when Redis is out of memory.

local function read(claim)
  local version, forgotten = string.match(claim or '', '^(%d+)\t.*\t(%d+)$')
  if version and tonumber(forgotten) > tonumber(ARGV[4]) then
    return version
  end
  return '0'
end

if read(redis.call('HGET', KEYS[1], ARGV[1])) ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
local some = redis.call('HRANDFIELD', KEYS[1], 8, 'WITHVALUES')
for i = 1, #some, 2 do
  if read(some[i + 1]) == '0' then
    redis.call('HDEL', KEYS[1], some[i])
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
