-- Drop queues without waiting runs: those not used lately, those with a last use in the future, and the latest ones where
-- there are more than the registry may hold. KEYS: queues, routes, passed. ARGV: clock offset, seconds, the prefix of the
-- indexes of waiting runs. Replies the names; if there are any, there may be more to drop.
local PORTION = 1000
local now = server_time(ARGV[1])
local oldest, latest = text(now - tonumber(ARGV[2])), '(' .. text(now + USED_AHEAD)
local retired = {}

local function retire(queues, again)
  for _, queue in ipairs(queues) do
    if redis.call('ZCARD', ARGV[3] .. queue) == 0 then
      redis.call('ZREM', KEYS[1], queue)
      redis.call('HDEL', KEYS[2], queue)
      redis.call('ZREM', KEYS[3], queue)
      retired[#retired + 1] = queue
    elseif again then
      redis.call('ZADD', KEYS[1], text(now), queue)
    end
  end
end

retire(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', oldest, 'LIMIT', 0, PORTION))
retire(redis.call('ZRANGEBYSCORE', KEYS[1], latest, '+inf', 'LIMIT', 0, PORTION), true)
if redis.call('ZCARD', KEYS[1]) > MOST_QUEUES + 1 then retire(redis.call('ZREVRANGE', KEYS[1], 0, PORTION - 1)) end
return retired
