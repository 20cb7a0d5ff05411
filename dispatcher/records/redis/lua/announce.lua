-- A worker presents itself. KEYS: workers, beats, times of the last beats. ARGV: clock offset, the worker, what it says.
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('HSETNX', KEYS[2], ARGV[2], 0)
redis.call('ZADD', KEYS[3], string.format('%.17g', tonumber(now[1]) + tonumber(now[2]) / 1000000 + tonumber(ARGV[1])), ARGV[2])
return 1
