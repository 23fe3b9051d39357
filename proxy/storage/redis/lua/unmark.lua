-- Take a mark back, unless it is another process's by now.
--
-- KEYS[1] the mark.  ARGV[1]: the process.

local own = ARGV[1] .. ':'
if string.sub(redis.call('GET', KEYS[1]) or '', 1, #own) == own then
  redis.call('DEL', KEYS[1])
end
