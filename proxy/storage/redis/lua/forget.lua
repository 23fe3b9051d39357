-- Forget the revisions of documents that were deleted long ago, a bounded number of them.
--
-- KEYS: hash of revisions, sorted set by time.  ARGV: deleted before, documents a step.
-- Answers how many went.

local members = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(members) do
  redis.call('HDEL', KEYS[1], member)
  redis.call('ZREM', KEYS[2], member)
end
return #members
