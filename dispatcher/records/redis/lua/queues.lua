-- The registry of queues, and the right to ring doorbells. The server undoes nothing that a function wrote before it
-- failed, so everything that may be refused is checked before the first write.

local MOST_QUEUES, MOST_LABELS, LONGEST_LABEL, LONGEST_ROUTE = 10000, 64, 200, 65536 -- as in routing.py; bytes
local USED_AHEAD = 3600 -- seconds by which a last use may be ahead of the clock

-- The error if this user may not push a doorbell to a list; nothing if they may, or if there is no list.
local function unrung(list)
  if list == '' or redis.acl_check_cmd('LPUSH', list, '') then return end
  return redis.error_reply('ERR this user may not ring ' .. list .. ': the ACL names the queues of each user')
end

-- The error if a queue that was just added must not stay in the registry; nothing if it may.
local function unfit(queues, route)
  local is_json, parsed = pcall(cjson.decode, #route <= LONGEST_ROUTE and route or '')
  local labels = is_json and type(parsed) == 'table' and parsed.labels
  if type(labels) ~= 'table' then return redis.error_reply('ERR a queue needs a route with labels') end
  if #labels > MOST_LABELS then
    return redis.error_reply('ERR labels: a run has ' .. MOST_LABELS .. ' at most, got ' .. #labels)
  end
  for _, label in ipairs(labels) do
    if type(label) ~= 'string' or #label > LONGEST_LABEL then
      return redis.error_reply('ERR labels: each is a string of ' .. LONGEST_LABEL .. ' bytes at most')
    end
  end
  if redis.call('ZCARD', queues) > MOST_QUEUES then
    return redis.error_reply('ERR this installation has ' .. MOST_QUEUES ..
      ' queues, and takes no more: use fewer label sets; a queue unused for a day makes room')
  end
end

-- Note the use of a queue, and notify listeners of a new one. Returns the error if a new one is refused; nothing is
-- written then.
local function use_queue(now, queues, routes, channel, queue, route)
  if redis.call('ZADD', queues, text(now), queue) == 0 then return end
  local problem = unfit(queues, route)
  if problem then
    redis.call('ZREM', queues, queue)
    return problem
  end
  redis.call('HSET', routes, queue, route)
  redis.call('PUBLISH', channel, '')
end
