-- The steps of a change, as program.py lists them in JSON (one argument: packing many costs the client more than all
-- the rest). A step is a name and its arguments; a name that isn't one of ours is a command of the server. Keys stand
-- among the arguments: installations don't use Redis Cluster, because Celery can't.

local step = {}

-- Keep the events of one moment: in their run's stream together, a line each, because an entry costs more than a line;
-- among all events each alone, because a subscriber acknowledges each. Tell who listens in one notice.
function step.EVENTS(now, of_run, all, channel, time, ...)
  local facts = table.concat({...}, '\n')
  redis.call('XADD', of_run, '*', 'fact', facts, 'time', time)
  for _, fact in ipairs({...}) do redis.call('XADD', all, '*', 'fact', fact, 'time', time) end
  redis.call('PUBLISH', channel, time .. '\n' .. facts)
end

step.USE = use_queue

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
