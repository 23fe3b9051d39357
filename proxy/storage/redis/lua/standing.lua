-- What the nodes know of the endpoints of one policy (failover.md §11): adds what a node counted,
-- believes whoever knows better, and tells what is known now.
--
-- KEYS: the hash of states, then one hash of counts per endpoint.  ARGV: width of a bucket in
-- seconds, how many buckets, the channel that hears of a change, who says it; then for each endpoint
-- its name, version, care, step, ms that are left, ms in that state, ms since it was last seen
-- healthy, 1 when that state starts to count anew, the state itself, and seven counts.
-- A state is `<version>|<care>|<step>|<until>|<since>|<opened>|<state>`, times in ms of this server's
-- clock; a bucket `<number> <seven counts>`.
-- Answers for each endpoint: 1 when the node was believed and that is another state, version, ms that are left, ms in that
-- state, ms since it was seen healthy, the state ('' when nothing is known), seven sums.

local WORDS, COUNTS, SAME_MS, DAY_MS = 16, 7, 50, 86400000
local STATE = '^(%-?%d+)|(%d+)|(%d+)|(%-?%d+)|(%-?%d+)|(%-?%d+)|(.*)$'
local NAME = '"state":"([%w_]+)"'
local BUCKET = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$'

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local width, buckets = tonumber(ARGV[1]), tonumber(ARGV[2])
local newest = math.floor(time[1] / width)

local function whole(number) return string.format('%.0f', number) end

local function known(name)
  local v, care, step, till, since, opened, body =
    string.match(redis.call('HGET', KEYS[1], name) or '', STATE)
  if not v or tonumber(till) > now + DAY_MS then return nil end  -- nobody forces for longer
  return {version = tonumber(v), care = tonumber(care), step = tonumber(step),
    till = tonumber(till), since = tonumber(since), opened = tonumber(opened), body = body}
end

local function better(told, mine)
  if not mine then return told.version > 0 end
  if told.version ~= mine.version then return told.version > mine.version end
  if told.care ~= mine.care then return told.care > mine.care end
  return told.till > math.max(mine.till, now) + SAME_MS or told.step > mine.step
end

-- An end that is only later is no change: nobody tells it.
local function differs(told, mine)
  if not mine or told.version ~= mine.version or told.care ~= mine.care then return true end
  return string.match(told.body, NAME) ~= string.match(mine.body, NAME)
end

local function count(key, at)
  local field = whole(newest % buckets)
  local sums, own, any = {}, {}, false
  for i = 1, COUNTS do
    sums[i], own[i] = 0, tonumber(ARGV[at + i])
    any = any or own[i] > 0
  end
  if any then
    local old = {string.match(redis.call('HGET', key, field) or '', BUCKET)}
    local fresh = {whole(newest)}
    for i = 1, COUNTS do
      local before = tonumber(old[1]) == newest and tonumber(old[i + 1]) or 0
      fresh[i + 1] = whole(before + own[i])
    end
    redis.call('HSET', key, field, table.concat(fresh, ' '))
    redis.call('PEXPIRE', key, whole(2000 * width * buckets))
  end
  for _, bucket in ipairs(redis.call('HVALS', key)) do
    local found = {string.match(bucket, BUCKET)}
    local number = tonumber(found[1])
    if number and number <= newest and number > newest - buckets then
      for i = 1, COUNTS do sums[i] = sums[i] + tonumber(found[i + 1]) end
    end
  end
  return sums
end

local told_all, news = {}, false
for place = 2, #KEYS do
  local at = 4 + (place - 2) * WORDS
  local name = ARGV[at + 1]
  local told = {version = tonumber(ARGV[at + 2]), care = tonumber(ARGV[at + 3]),
    step = tonumber(ARGV[at + 4]), till = now + tonumber(ARGV[at + 5]),
    since = now - tonumber(ARGV[at + 6]), opened = now - tonumber(ARGV[at + 7]),
    body = ARGV[at + 9]}
  local mine, believed = known(name), 0
  if better(told, mine) then
    believed, news = differs(told, mine) and 1 or 0, true
    if ARGV[at + 8] == '1' and (not mine or told.version > mine.version) then
      redis.call('DEL', KEYS[place])
    end
    mine = told
    redis.call('HSET', KEYS[1], name, table.concat({whole(told.version), whole(told.care),
      whole(told.step), whole(told.till), whole(told.since), whole(told.opened), told.body}, '|'))
  end
  local sums = count(KEYS[place], at + 9)
  if mine then
    told_all[#told_all + 1] = {believed, whole(mine.version), whole(math.max(0, mine.till - now)),
      whole(now - mine.since), whole(now - mine.opened), mine.body, unpack(sums)}
  else
    told_all[#told_all + 1] = {0, '0', '0', '0', '0', '', unpack(sums)}
  end
end
redis.call('PEXPIRE', KEYS[1], DAY_MS)
if news then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
return told_all
