-- Take a lease that nobody else holds; whoever holds it begins anew.
--
-- KEYS: lease, last token.  ARGV: node, time to live in ms.
-- Answers the token, or nothing while another node holds it.  A token is greater than all before it
-- even when the server has lost the last one: it is never below the time of day.

local held = redis.call('GET', KEYS[1])
if held and string.match(held, '^(.*):%d+$') ~= ARGV[1] then return false end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local token = math.max(tonumber(redis.call('GET', KEYS[2]) or 0) + 1, now)
token = string.format('%.0f', token)
redis.call('SET', KEYS[2], token)
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. token, 'PX', ARGV[2])
return token
