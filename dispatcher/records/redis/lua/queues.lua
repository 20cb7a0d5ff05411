-- Note that a queue is used; tell listeners of a new one.
local function use_queue(now, queues, routes, channel, queue, route)
  if redis.call('ZADD', queues, text(now), queue) == 1 then
    redis.call('HSET', routes, queue, route)
    redis.call('PUBLISH', channel, '')
  end
end
