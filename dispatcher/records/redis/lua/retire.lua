-- Forget queues that were not used lately and in which no run waits. KEYS: queues, routes, passed. ARGV: clock offset,
-- seconds, what the keys of the indexes of waiting runs begin with. Replies their names.
local now = redis.call('TIME')
local oldest = tonumber(now[1]) + tonumber(now[2]) / 1000000 + tonumber(ARGV[1]) - tonumber(ARGV[2])
local retired = {}
for _, queue in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.17g', oldest))) do
  if redis.call('ZCARD', ARGV[3] .. queue) == 0 then
    redis.call('ZREM', KEYS[1], queue)
    redis.call('HDEL', KEYS[2], queue)
    redis.call('ZREM', KEYS[3], queue)
    retired[#retired + 1] = queue
  end
end
return retired
