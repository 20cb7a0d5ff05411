-- Count a worker's heartbeat. KEYS: workers, beats, times of the last beats. ARGV: clock offset, worker id.
-- Replies 0 if the worker was removed. A counter that isn't a number starts again, which observers see as a change.
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then return 0 end
local now = server_time(ARGV[1])
count(KEYS[2], ARGV[2], 1)
redis.call('ZADD', KEYS[3], text(now), ARGV[2])
return 1
