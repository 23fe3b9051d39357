-- What the nodes know of the holds of one workspace (failover.md §7.2, §11): of two ends of a hold
-- the later one counts, whoever says it, and a hold is over for all when it is for one.
--
-- KEYS: the hash.  ARGV: the channel that hears of a change, who says it, how many are kept, ms that
-- one is kept after its end, ms that a hold lasts at most; then for each hold its name, the ms that
-- are left (negative: somebody is answered again) and what else is said of it.
-- A hold is `<until>|<over>|<rest>`: ms of this server's clock, 1 when it is over, else 0.
-- Answers twice: for each that was said 0 (that was known), 1 (news) or 2 (news, and others had said
-- that it is over), and for each that is kept its name, ms that are left, 1 when it is over, and rest.

local SAME_MS = 50
local HOLD = '^(%d+)|([01])|(.*)$'
local key, most = KEYS[1], tonumber(ARGV[3])
local kept_ms, longest_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local known, kept = {}, 0
local all = redis.call('HGETALL', key)
for i = 1, #all, 2 do
  local till, over, rest = string.match(all[i + 1], HOLD)
  till = tonumber(till)
  if till and till + kept_ms > now and till <= now + longest_ms then
    known[all[i]] = {till = till, over = over == '1', rest = rest}
    kept = kept + 1
  else
    redis.call('HDEL', key, all[i])
  end
end

local answers, news = {}, false

local function keep(name, hold)
  if not known[name] then
    if kept >= most then return end
    kept = kept + 1
  end
  known[name], news = hold, true
  redis.call('HSET', key, name,
    string.format('%.0f|%d|%s', hold.till, hold.over and 1 or 0, hold.rest))
end

for at = 6, #ARGV, 3 do
  local name, left, mine = ARGV[at], tonumber(ARGV[at + 1]), known[ARGV[at]]
  local answer = 0
  if left < 0 then
    if not mine or (not mine.over and mine.till <= now + SAME_MS) then
      answer = 1
      keep(name, {till = now, over = true, rest = ARGV[at + 2]})
    end
  elseif left > SAME_MS then
    local till = now + math.min(left, longest_ms)
    if not mine or mine.over then
      answer = mine and 2 or 1
      keep(name, {till = till, over = false, rest = ARGV[at + 2]})
    elseif till > mine.till + SAME_MS then
      keep(name, {till = till, over = false, rest = ARGV[at + 2]})
    end
  end
  answers[#answers + 1] = answer
end

local heard = {}
for name, hold in pairs(known) do
  heard[#heard + 1] = {name, string.format('%.0f', math.max(0, hold.till - now)),
    hold.over and 1 or 0, hold.rest}
end
if news then
  redis.call('PEXPIRE', key, string.format('%.0f', longest_ms + kept_ms))
  redis.call('PUBLISH', ARGV[1], ARGV[2])
end
return {answers, heard}
