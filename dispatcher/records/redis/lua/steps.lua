-- The steps of a change, as program.py lists them in JSON (one argument: packing many costs the client more than all
-- the rest). A step is a name and its arguments; a name that isn't one of ours is a command of the server. Keys stand
-- among the arguments: installations don't use Redis Cluster, because Celery can't.

local function server_time(offset)
  local now = redis.call('TIME')
  return tonumber(now[1]) + tonumber(now[2]) / 1000000 + tonumber(offset)
end

-- Seventeen digits give the same double back in Python and in sorted sets.
local function text(number)
  return string.format('%.17g', number)
end

local step = {}

-- Keep the events of one moment: in their run's stream together, a line each, because an entry costs more than a line;
-- among all events each alone, because a subscriber acknowledges each. Tell who listens in one notice; no time means now.
function step.EVENTS(now, of_run, all, channel, time, ...)
  if time == '' then time = text(now) end
  local facts = table.concat({...}, '\n')
  redis.call('XADD', of_run, '*', 'fact', facts, 'time', time)
  for _, fact in ipairs({...}) do redis.call('XADD', all, '*', 'fact', fact, 'time', time) end
  redis.call('PUBLISH', channel, time .. '\n' .. facts)
end

-- Store a new record: fields and values, then the names of the fields that are now.
function step.NEW(now, key, fields, stamped)
  local time = text(now)
  for _, name in ipairs(stamped) do
    fields[#fields + 1] = name
    fields[#fields + 1] = time
  end
  redis.call('HSET', key, unpack(fields))
end

-- Put a run under indexes, so many seconds from now.
function step.PLACE(now, id, seconds, ...)
  local time = text(now + tonumber(seconds))
  for _, index in ipairs({...}) do redis.call('ZADD', index, time, id) end
end

-- Note that a queue is used; tell listeners of a new one.
function step.USE(now, queues, routes, channel, queue, route)
  if redis.call('ZADD', queues, text(now), queue) == 1 then
    redis.call('HSET', routes, queue, route)
    redis.call('PUBLISH', channel, '')
  end
end

-- One run less refers to a shared blob.
function step.FREE(now, blob, seconds)
  if redis.call('EXISTS', blob) == 1 and redis.call('HINCRBY', blob, 'refs', -1) <= 0 then
    redis.call('EXPIRE', blob, seconds)
  end
end

-- Have the server drop keys some time after `till`, whatever becomes of purges.
function step.KEEP(now, till, beyond, ...)
  local seconds = math.max(math.ceil(tonumber(till) - now), 0) + tonumber(beyond)
  for _, key in ipairs({...}) do redis.call('EXPIRE', key, string.format('%d', seconds)) end
end

-- Drop an idempotency key, if it is still this run's.
function step.UNKEY(now, key, id)
  if redis.call('GET', key) == id then redis.call('DEL', key) end
end

local function take_steps(now, listed)
  for _, words in ipairs(cjson.decode(listed)) do
    local own = step[words[1]]
    if own then
      own(now, unpack(words, 2))
    else
      redis.call(unpack(words))
    end
  end
end
