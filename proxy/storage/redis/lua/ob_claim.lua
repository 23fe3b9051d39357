-- Claim rows of the outbox: first those whose claim ran out, then those that are due.
--
-- KEYS: what this question was told, rows that wait (by due), claimed rows (by the end of their
-- claim), what the keys of rows begin with, a lease.
-- ARGV: now in ms (of whoever says what is due), owner, ms of the claim, rows at most, the token of
-- the lease or nothing, for how many ms to remember the answer.
-- Answers {'+', rows} or {'-', 'fence'}.  A question that is asked twice is told the same rows.

if ARGV[5] ~= '' then
  local held = redis.call('GET', KEYS[5])
  if not held or string.match(held, ':(%d+)$') ~= ARGV[5] then return {'-', 'fence'} end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local most = tonumber(ARGV[4])
local members = {}
local function collect(set, before)
  local left = most - #members
  if left <= 0 then return end
  local found = redis.call('ZRANGEBYSCORE', set, '-inf', before, 'LIMIT', 0, left)
  for _, member in ipairs(found) do members[#members + 1] = member end
end

local told = redis.call('GET', KEYS[1])
if told then
  for member in string.gmatch(told, '%d+') do members[#members + 1] = member end
else
  collect(KEYS[3], string.format('%.0f', now))
  collect(KEYS[2], ARGV[1])
  for _, member in ipairs(members) do
    local row = KEYS[4] .. string.format('%.0f', tonumber(member))
    redis.call('HINCRBY', row, 'n', 1)
    redis.call('HSET', row, 'o', ARGV[2])
    redis.call('ZREM', KEYS[2], member)
    redis.call('ZADD', KEYS[3], string.format('%.0f', now + tonumber(ARGV[3])), member)
  end
  if #members > 0 then
    redis.call('SET', KEYS[1], table.concat(members, ' '), 'PX', ARGV[6])
  end
end

local rows = {}
for _, member in ipairs(members) do
  local id = string.format('%.0f', tonumber(member))
  local row = redis.call('HMGET', KEYS[4] .. id, 't', 'g', 'k', 'p', 'd', 'a', 'o', 'n')
  if row[1] then rows[#rows + 1] = {id, row} end
end
return {'+', rows}
