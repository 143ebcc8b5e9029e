-- Moves what has become due into its lane. A member is the lane, a newline and
-- the entry's body; or "x" and the id, without its prefix, of a challenge whose
-- time is up.
--
-- KEYS[1] what is due later (by time, ms)
-- ARGV[1] now, ms
-- ARGV[2] at most so many
-- ARGV[3] prefix of the lanes' streams. They carry KEYS[1]'s hash tag, so they
--         are in its slot although they are not listed in KEYS.
--
-- Returns {moved, time of the next one, ms, or ""}. Removes before it adds, so
-- that it works when Redis is out of memory.

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do
  redis.call('ZREM', KEYS[1], member)
  local lane, body = string.match(member, '^([^\n]*)\n(.*)$')
  if not lane then
    lane, body = 'tasks', 'expire chl_' .. string.sub(member, 2)
  end
  redis.call('XADD', ARGV[3] .. lane, '*', 'd', body)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {#due, first[2] or ''}
