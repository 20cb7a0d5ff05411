-- List the queues used last, at most as many as the registry may hold; others may have added more, or future times.
-- KEYS: queues, routes. ARGV: clock offset. Replies name, last use and route of each queue that has a route.
local CHUNK = 1000 -- most words of one command
local latest = text(server_time(ARGV[1]) + USED_AHEAD)
local used = redis.call('ZREVRANGEBYSCORE', KEYS[1], latest, '-inf', 'WITHSCORES', 'LIMIT', 0, MOST_QUEUES)
local queues = {}
for first = 1, #used, 2 * CHUNK do
  local names = {}
  for n = first, math.min(first + 2 * CHUNK - 1, #used), 2 do names[#names + 1] = used[n] end
  for n, route in ipairs(redis.call('HMGET', KEYS[2], unpack(names))) do
    if route then queues[#queues + 1] = {names[n], used[first + 2 * n - 1], route} end
  end
end
return queues
