-- Hold a lease for longer.
--
-- KEYS: lease.  ARGV: `node:token`, time to live in ms.  Answers 1, or 0 when it is not held so.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
