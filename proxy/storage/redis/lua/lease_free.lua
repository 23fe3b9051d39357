-- Give a lease back.
--
-- KEYS: lease.  ARGV: `node:token`.  Answers 1, or 0 when it is not held so.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1
