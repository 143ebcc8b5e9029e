-- What begins the scripts of arrivals and of steps.
--
-- run runs commands: ARGV from i on is, for each, its number of words, its name and its
-- words without the key, which is the next of KEYS from k on. Three are not as others:
-- PUBLISH has no key; XREADGROUP, of group, consumer and count, reads the key, which is
-- a lane and may have no group yet: then it brings nothing; RANK, of score, member,
-- score and life, ms, adds to a sorted set, removes what is below the second score, and
-- lets it live as long, or up to a minute less. run returns what was read: {lane, its
-- entries} of each.
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
        call('ZADD', KEYS[k], ARGV[i + 2], ARGV[i + 3])
        call('ZREMRANGEBYSCORE', KEYS[k], '-inf', ARGV[i + 4])
        if call('PTTL', KEYS[k]) < ARGV[i + 5] - 60000 then
          call('PEXPIRE', KEYS[k], ARGV[i + 5])
        end
      else
        call(name, KEYS[k], unpack(ARGV, i + 2, i + n))
      end
      k = k + 1
    end
    i = i + n + 1
  end
  return handed
end

