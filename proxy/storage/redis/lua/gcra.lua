-- Take one from a bucket, as `proxy.model.coord.gcra` does it (control-api.md §7).
--
-- KEYS[1] the bucket: `<seconds>:<nanoseconds>` of its theoretical arrival time by this server's
-- clock.  ARGV: what one request costs, and the window, in nanoseconds.
-- Answers {1 when allowed, how far the arrival time is ahead of now in nanoseconds}.
--
-- A number here holds 53 bits: a difference within a window fits, a time of day in nanoseconds does
-- not, so its two parts are kept apart.

local time = redis.call('TIME')
local now_s, now_ns = tonumber(time[1]), tonumber(time[2]) * 1000
local step, window = tonumber(ARGV[1]), tonumber(ARGV[2])

local used = 0
local s, ns = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+):(%d+)$')
if s then
  -- a clock that was set back shuts nobody out for longer than a window
  used = math.min(math.max((s - now_s) * 1000000000 + (ns - now_ns), 0), window)
end
if used + step > window then return {0, string.format('%.0f', used)} end

used = used + step
local arrival = now_ns + used
redis.call('SET', KEYS[1],
  string.format('%.0f:%.0f', now_s + math.floor(arrival / 1000000000), arrival % 1000000000),
  'PX', string.format('%.0f', math.ceil(window / 1000000)))
return {1, string.format('%.0f', used)}
