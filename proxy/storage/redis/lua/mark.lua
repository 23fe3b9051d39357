-- Mark a request as under way (control-api.md §6).
--
-- KEYS[1] the mark: `<process>:<fingerprint>`.  ARGV: process, fingerprint, time to live in ms.
-- Answers nil when it is marked now, else the fingerprint of another process's request.  What this
-- process marked before is its own to mark again: it knows which of its requests are under way.

local held = redis.call('GET', KEYS[1])
local own = ARGV[1] .. ':'
if held and string.sub(held, 1, #own) ~= own then
  return string.sub(held, string.find(held, ':', 1, true) + 1)
end
redis.call('SET', KEYS[1], own .. ARGV[2], 'PX', ARGV[3])
