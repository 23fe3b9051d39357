-- One commit: decide everything, then write everything; a conflict writes nothing (storage.md §2).
--
-- KEYS[1] the result of this commit, then the keys of each operation in order.
-- ARGV: now in ms, time to live of the result in ms, "whole" or "piece", then the operations: a
-- letter and its arguments, in order.  A piece only appends; its other operations are looked at.
-- Answers {'+', result} or {'-', index of the operation, reason}; -1: the fence of the batch.
-- A result: revisions of the puts, '|', `seq:letter:received` of the appends, '|', numbers of the
-- rows of the outbox.

local told = redis.call('GET', KEYS[1])
if told then return {'+', told} end

local now = tonumber(ARGV[1])
local whole = ARGV[3] == 'whole'
local key_at, arg_at = 1, 3
local function key() key_at = key_at + 1; return KEYS[key_at] end
local function arg() arg_at = arg_at + 1; return ARGV[arg_at] end

local writes = {}
local function write(...) writes[#writes + 1] = {...} end
local function state(...) if whole then write(...) end end

-- what the operations before this one have changed; false: not there
local seen = {}
local function hget(hash, field)
  local changed = seen[hash] and seen[hash][field]
  if changed ~= nil then return changed end
  return redis.call('HGET', hash, field)
end
local function hset(hash, field, value)
  seen[hash] = seen[hash] or {}
  seen[hash][field] = value
  if value then state('HSET', hash, field, value) else state('HDEL', hash, field) end
end
local strings = {}
local function get(name)
  if strings[name] ~= nil then return strings[name] end
  return redis.call('GET', name)
end

local function revision_of(documents, gone, id, member)
  local value = hget(documents, id)
  if value then return tonumber(string.match(value, '^(%d+):')), true end
  return tonumber(hget(gone, member) or 0), false
end
local function refusal(expect, revision, there)
  if expect == -1 and there then return 'exists' end
  if expect >= 0 and not there then return 'missing' end
  if expect >= 0 and revision ~= expect then return 'revision' end
end
local function release(unique, held, id)
  local pairs_held = hget(held, id)
  if not pairs_held then return end
  for _, pair in ipairs(cjson.decode(pairs_held)) do hset(unique, pair, false) end
  hset(held, id, false)
end

local revisions, appended = {}, {}
local apply = {}

function apply.P()  -- put
  local documents, kinds, gone, gone_at, unique, held = key(), key(), key(), key(), key(), key()
  local kind, id, member, body, expect = arg(), arg(), arg(), arg(), tonumber(arg())
  local claims = {}
  for i = 1, tonumber(arg()) do claims[i] = arg() end
  local revision, there = revision_of(documents, gone, id, member)
  local refused = refusal(expect, revision, there)
  if refused then return refused end
  revision = revision + 1
  if there then
    release(unique, held, id)
  elseif revision > 1 then
    hset(gone, member, false)
    state('ZREM', gone_at, member)
  end
  for _, pair in ipairs(claims) do
    if hget(unique, pair) then return 'unique' end
    hset(unique, pair, id)
  end
  if #claims > 0 then hset(held, id, cjson.encode(claims)) end
  hset(documents, id, string.format('%.0f:', revision) .. body)
  state('SADD', kinds, kind)
  revisions[#revisions + 1] = string.format('%.0f', revision)
end

function apply.D()  -- delete
  local documents, gone, gone_at, unique, held = key(), key(), key(), key(), key()
  local id, member, expect = arg(), arg(), tonumber(arg())
  local revision, there = revision_of(documents, gone, id, member)
  local refused = refusal(expect, revision, there)
  if refused then return refused end
  if not there then
    if expect == -2 then return end
    return 'missing'
  end
  hset(documents, id, false)
  hset(gone, member, string.format('%.0f', revision + 1))
  state('ZADD', gone_at, ARGV[1], member)
  release(unique, held, id)
end

local log  -- the one that the next entries go to
local logs = {}
function apply.L()  -- switch to a log
  local stream = key()
  log = logs[stream]
  if not log then
    log = {stream = stream, seq_key = key(), tip = key(), all = key(), by_id = key(), name = arg()}
    log.indexed = arg() == '1'
    log.seq = tonumber(redis.call('GET', log.seq_key) or 0)
    log.first = log.seq
    logs[stream] = log
  else
    key(); key(); key(); key(); arg(); arg()
  end
end

local function entry(received, event_key, searched, body)
  log.seq = log.seq + 1
  local seq = string.format('%.0f', log.seq)
  writes[#writes + 1] = {'XADD', log.stream, seq .. '-0',
    'r', received, 'k', event_key, 'm', searched, 'b', body}
  if log.indexed and event_key ~= '' then
    writes[#writes + 1] = {'HSET', log.by_id, event_key, seq}
  end
  appended[#appended + 1] = seq .. ':a:' .. received
  return seq
end

function apply.A()  -- append an entry
  entry(arg(), arg(), arg(), arg())
end

function apply.R()  -- append an entry that is recognised when it comes again
  local remembered = key()
  local received, event_key, searched, body = arg(), arg(), arg(), arg()
  local content, ttl, expires = arg(), arg(), arg()
  local until_ms, first, came, was = string.match(
    get(remembered) or '', '^(%d+):(%d+):(%-?%d+):(.*)$')
  if until_ms and tonumber(until_ms) > now then
    local letter = was == content and 'd' or 'c'
    appended[#appended + 1] = first .. ':' .. letter .. ':' .. came
    return
  end
  local seq = entry(received, event_key, searched, body)
  local memory = expires .. ':' .. seq .. ':' .. received .. ':' .. content
  strings[remembered] = memory
  write('SET', remembered, memory, 'PX', ttl)
end

function apply.H()  -- append a row of a hash chain
  local received, event_key, searched, body = arg(), arg(), arg(), arg()
  local seq, before, hash = tonumber(arg()), arg(), arg()
  local tip = log.last or redis.call('GET', log.tip) or string.rep('0', 64)
  if seq ~= log.seq + 1 or tip ~= before then return 'head' end
  log.last = hash
  entry(received, event_key, searched, body)
end

function apply.I()  -- the finished form of an idempotency record
  local record = key()
  local fingerprint, status, headers, body, ttl, expires = arg(), arg(), arg(), arg(), arg(), arg()
  local until_ms = hget(record, 'x')
  if until_ms and tonumber(until_ms) > now then return 'idem' end
  hset(record, 'x', expires)
  state('HSET', record, 'f', fingerprint, 's', status, 'h', headers, 'b', body)
  state('PEXPIRE', record, ttl)
end

function apply.C()  -- cursor; positions are text: a number here would lose its last digits
  local cursors = key()
  local name, old, new = arg(), arg(), arg()
  if (hget(cursors, name) or '0') ~= old then return 'cursor' end
  hset(cursors, name, new)
end

function apply.N()  -- counters
  local rollup, rollups = key(), key()
  local hour = arg()
  for _ = 1, tonumber(arg()) do
    local field, n = arg(), arg()
    local sum = tonumber(redis.call('HGET', rollup, field) or 0) + tonumber(n)
    if sum > 2 ^ 62 or sum < -2 ^ 62 then return 'count' end
    state('HINCRBY', rollup, field, n)
  end
  state('ZADD', rollups, hour, hour)
end

function apply.F()  -- the lease of the batch is held under this token
  local held = redis.call('GET', key())
  local token = arg()
  if not held or string.match(held, ':(%d+)$') ~= token then return 'fence' end
end

-- The outbox.  A row waits in a sorted set by due; behind another row of its group its score is
-- infinite until that one is gone.
local posted, last_posted, posting = {}, nil, nil
local groups = {}  -- those that changed: key -> {rows that wait, what the keys of rows begin with}
local function member_of(id) return string.format('%016.0f', tonumber(id)) end
local function group_of(prefix, target, group) return prefix .. 'g:' .. target .. '\0' .. group end

function apply.O()  -- write a row of the outbox
  local waits, prefix, counter, logs_key = key(), key(), key(), key()
  local name, target, group, kind, payload = arg(), arg(), arg(), arg(), arg()
  local due, attempts = arg(), arg()
  last_posted = (last_posted or tonumber(redis.call('GET', counter) or 0)) + 1
  posting = {counter, logs_key, name}
  local id = string.format('%.0f', last_posted)
  local row, member = prefix .. id, member_of(id)
  seen[row] = {t = target, g = group, o = '', n = '0'}
  state('HSET', row, 't', target, 'g', group, 'k', kind, 'p', payload, 'd', due, 'a', attempts,
    'o', '', 'n', '0')
  state('ZADD', prefix .. 'all', id, member)
  if group == '' then
    state('ZADD', waits, due, member)
  else
    local all = group_of(prefix, target, group)
    groups[all] = {waits, prefix}
    state('ZADD', all, id, member)
    state('ZADD', waits, 'inf', member)
  end
  posted[#posted + 1] = id
end

local function settle()  -- the row that an operation names by number and token, or why not
  local waits, claimed, prefix = key(), key(), key()
  local id, token = arg(), arg()
  local row = {waits = waits, claimed = claimed, prefix = prefix, key = prefix .. id}
  row.member = member_of(id)
  local last = hget(row.key, 'n')
  if token == 'any' then
    if not last then return nil end
  elseif not last then
    return nil, 'missing'
  elseif hget(row.key, 'o') == '' or last ~= token then
    return nil, 'fence'
  end
  state('ZREM', claimed, row.member)
  return row
end

function apply.E()  -- a row is done
  local row, refused = settle()
  if not row then return refused end
  local target, group = hget(row.key, 't'), hget(row.key, 'g')
  state('ZREM', row.waits, row.member)
  state('ZREM', row.prefix .. 'all', row.member)
  if group ~= '' then
    local all = group_of(row.prefix, target, group)
    groups[all] = {row.waits, row.prefix}
    state('ZREM', all, row.member)
  end
  state('UNLINK', row.key)
  seen[row.key] = {n = false}
end

function apply.B()  -- a row is given back
  local row, refused = settle()
  local due, attempts = arg(), arg()
  if not row then return refused end
  hset(row.key, 'o', '')
  state('HSET', row.key, 'd', due, 'a', attempts)
  state('ZADD', row.waits, due, row.member)
end

while arg_at < #ARGV do
  local letter, index = arg(), tonumber(arg())
  local refused = apply[letter]()
  if refused then return {'-', index, refused} end
end
for _, each in ipairs(writes) do redis.call(unpack(each)) end
for _, each in pairs(logs) do
  if each.seq > each.first then
    redis.call('SET', each.seq_key, string.format('%.0f', each.seq))
    redis.call('SADD', each.all, each.name)
    if each.last then redis.call('SET', each.tip, each.last) end
  end
end
if whole and posting then
  redis.call('SET', posting[1], string.format('%.0f', last_posted))
  redis.call('SADD', posting[2], posting[3])
end
for all, each in pairs(whole and groups or {}) do
  local first = redis.call('ZRANGE', all, 0, 0)[1]
  if first and redis.call('ZSCORE', each[1], first) == 'inf' then
    local row = each[2] .. string.format('%.0f', tonumber(first))
    redis.call('ZADD', each[1], redis.call('HGET', row, 'd'), first)
  end
end
local result = table.concat(revisions, ' ') .. '|' .. table.concat(appended, ' ')
  .. '|' .. table.concat(posted, ' ')
redis.call('SET', KEYS[1], result, 'PX', ARGV[2])
return {'+', result}
