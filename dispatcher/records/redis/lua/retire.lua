-- Forget queues that were not used lately and in which no run waits. KEYS: queues, routes, passed. ARGV: clock offset,
-- seconds, what the keys of the indexes of waiting runs begin with. Replies their names.
local now = server_time(ARGV[1])
local oldest = now - tonumber(ARGV[2])
local retired = {}
for _, queue in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(oldest), 'LIMIT', 0, 1000)) do
  if redis.call('ZCARD', ARGV[3] .. queue) == 0 then
    redis.call('ZREM', KEYS[1], queue)
    redis.call('HDEL', KEYS[2], queue)
    redis.call('ZREM', KEYS[3], queue)
    retired[#retired + 1] = queue
  end
end
return retired
