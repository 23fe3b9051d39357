-- Forget the oldest entries of a log, a bounded number of them; the newest one stays.
--
-- KEYS: stream, event key -> seq.  ARGV: received before, entries to keep at most, entries a step.
-- Answers how many went.

local length = redis.call('XLEN', KEYS[1])
local over = length - tonumber(ARGV[2])
local before = tonumber(ARGV[1])
local went, last = 0, 0
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[3])) do
  local fields = entry[2]
  if length - went <= 1 or (tonumber(fields[2]) >= before and went >= over) then break end
  local seq = string.match(entry[1], '^%d+')
  if fields[4] ~= '' and redis.call('HGET', KEYS[2], fields[4]) == seq then
    redis.call('HDEL', KEYS[2], fields[4])
  end
  went, last = went + 1, tonumber(seq)
end
if went > 0 then
  redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%.0f-0', last + 1))
end
return went
