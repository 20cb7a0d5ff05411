-- Register a worker. KEYS: workers, beats, times of the last beats. ARGV: clock offset, worker id, its entry in JSON.
local now = server_time(ARGV[1])
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('HSETNX', KEYS[2], ARGV[2], 0)
redis.call('ZADD', KEYS[3], text(now), ARGV[2])
return 1
