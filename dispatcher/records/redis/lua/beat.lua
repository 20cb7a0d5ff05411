-- A worker lives. KEYS: workers, beats, times of the last beats. ARGV: clock offset, the worker. Replies 0 if the worker
-- was removed. A counter that isn't one begins anew: whoever watches it sees it change.
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then return 0 end
local now = server_time(ARGV[1])
count(KEYS[2], ARGV[2], 1)
redis.call('ZADD', KEYS[3], text(now), ARGV[2])
return 1
