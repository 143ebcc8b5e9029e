-- What begins the scripts of arrivals and of steps.

-- rank adds to a sorted set, removes what is below a score, and lets the set live for
-- life, ms, or up to a minute less.
local function rank(key, score, member, below, life)
  redis.call('ZADD', key, score, member)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', below)
  if redis.call('PTTL', key) < life - 60000 then
    redis.call('PEXPIRE', key, life)
  end
end

-- run runs commands: ARGV from i on is, for each, its number of words, its name and its
-- words without the key, which is the next of KEYS from k on. Three are not as others:
-- PUBLISH has no key; XREADGROUP, of group, consumer and count, reads the key, which is
-- a lane and may have no group yet: then it brings nothing; RANK is rank. run returns
-- what was read: {lane, its entries} of each.
local function run(i, k)
  local call, last, handed = redis.call, #ARGV, {}
  while i <= last do
    local n, name = tonumber(ARGV[i]), ARGV[i + 1]
    if name == 'PUBLISH' then
      call(name, unpack(ARGV, i + 2, i + n))
    else
      if name == 'XREADGROUP' then
        local got = redis.pcall(name, 'GROUP', ARGV[i + 2], ARGV[i + 3], 'COUNT', ARGV[i + 4], 'STREAMS', KEYS[k], '>')
        handed[#handed + 1] = got and got[1]
      elseif name == 'RANK' then
        rank(KEYS[k], unpack(ARGV, i + 2, i + n))
      else
        call(name, KEYS[k], unpack(ARGV, i + 2, i + n))
      end
      k = k + 1
    end
    i = i + n + 1
  end
  return handed
end

