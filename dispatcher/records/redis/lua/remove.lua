-- Deregister a worker that owns no runs. KEYS: workers, beats, times of the last beats, the runs it owns. ARGV: worker id.
-- Replies 0 if it owns runs.
if redis.call('EXISTS', KEYS[4]) == 1 then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
