-- A node says that it is alive, and hears who else is; who is not any more is forgotten.
--
-- KEYS: sorted set of processes by their last beat, hash of what they say.  ARGV: the process, what
-- it says, how long a beat counts in ms, how many to tell of at most.
-- Answers {process, its last beat in ms by this server's clock, what it says}, flat.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = tonumber(ARGV[3])

local function forget(from, to)
  for _, process in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], from, to)) do
    redis.call('ZREM', KEYS[1], process)
    redis.call('HDEL', KEYS[2], process)
  end
end
forget('-inf', string.format('%.0f', now - live))
forget(string.format('%.0f', now + live), '+inf')  -- from before the clock was set back
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])

local told = {}
local alive = redis.call('ZREVRANGE', KEYS[1], 0, ARGV[4] - 1, 'WITHSCORES')
for i = 1, #alive, 2 do
  told[#told + 1] = alive[i]
  told[#told + 1] = alive[i + 1]
  told[#told + 1] = redis.call('HGET', KEYS[2], alive[i]) or ''
end
return told
