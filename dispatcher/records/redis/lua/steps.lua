-- The steps of a change, from run_scripts/change.py, as one JSON argument: packing many arguments costs the client more
-- than all the rest. A step is a name and its arguments. Keys are among the arguments, because installations can't use
-- Redis Cluster: Celery can't.

-- Commands of the server that are steps. Their first argument is the only key or channel.
local commands = {
  HSET = true, HDEL = true, HSETNX = true, ZADD = true, ZREM = true, PUBLISH = true, LPUSH = true, RPUSH = true,
}

-- Steps of our own, and the range of their words that are keys or channels.
local step, first_key, last_key = {}, {}, {}

-- Store the events of one moment, a line each: in one entry of their run's stream, because an entry costs more than a line;
-- in an entry each among all events, because subscribers acknowledge each. Publish them in one notice.
function step.EVENTS(now, of_run, all, channel, time, facts)
  add_entry(of_run, 'fact', facts, 'time', time)
  for fact in string.gmatch(facts, '[^\n]+') do add_entry(all, 'fact', fact, 'time', time) end
  redis.call('PUBLISH', channel, time .. '\n' .. facts)
end
first_key.EVENTS, last_key.EVENTS = 2, 4

-- A queue for which the registry has no room isn't added; the run is rung again until there is room.
step.USE = use_queue
first_key.USE, last_key.USE = 2, 4

-- Remove a run's reference to a shared blob.
function step.FREE(now, blob, seconds)
  if redis.call('EXISTS', blob) == 1 and count(blob, 'refs', -1) <= 0 then
    redis.call('EXPIRE', blob, seconds)
  end
end
first_key.FREE, last_key.FREE = 2, 2

-- Let the keys of a run expire some time after `till`, in case they aren't purged. Many runs have only the first two.
function step.KEEP(now, till, beyond, record, events, ...)
  local seconds = string.format('%d', math.max(math.ceil(tonumber(till) - now), 0) + tonumber(beyond))
  redis.call('EXPIRE', record, seconds)
  redis.call('EXPIRE', events, seconds)
  if redis.call('EXISTS', ...) == 0 then return end
  for _, key in ipairs({...}) do redis.call('EXPIRE', key, seconds) end
end
first_key.KEEP = 4

-- Remove a runner's claim that the record contains from now on.
function step.UNCLAIM(now, claim) redis.call('DEL', claim) end
first_key.UNCLAIM, last_key.UNCLAIM = 2, 2

-- Note how far a run's spec was used; an empty word removes the note. The words after it are the notes that allow this
-- (none: all do), which is checked before the first step.
function step.SPEND() end -- done by spend(), before all others
first_key.SPEND, last_key.SPEND = 2, 2

-- Do the step SPEND. Returns the noted word if that forbids it.
local function spend(used, id, till, word, ...)
  local accepts = {...}
  if #accepts == 1 and accepts[1] == '' and word ~= '' then -- the first claim needs one command
    if redis.call('HSETNX', used, id, word) == 0 then return redis.call('HGET', used, id) end
    if redis.call('HLEN', used) == 1 then redis.call('EXPIREAT', used, till) end
    return
  end
  local before = redis.call('HGET', used, id) or ''
  local fits = #accepts == 0
  for _, accepted in ipairs(accepts) do fits = fits or before == accepted end
  if not fits then return before end
  if word == '' then
    redis.call('HDEL', used, id)
  elseif redis.call('HSET', used, id, word) == 1 and redis.call('HLEN', used) == 1 then
    redis.call('EXPIREAT', used, till)
  end
end

-- Replace {"apart": n} by the nth value passed apart. Returns false if there is no such value.
local function put_in(words, apart)
  for n = 1, #words do
    if type(words[n]) == 'table' then words[n] = apart[words[n].apart] end
    if words[n] == nil then return false end
  end
  return true
end

-- The prefix of an installation's keys, from the key of a record; nothing if it isn't one.
local function home_of(record)
  return string.match(record, '^(.-:):run:%w[%w_.-]*$')
end

-- The range of a step's words that are keys or channels; nothing if there is no such step.
local function range_of_keys(words)
  local name = words[1]
  if commands[name] then return 2, 2 end
  if first_key[name] then return first_key[name], last_key[name] or #words end
end

-- The error if steps have more events than a change may have steps; each is an entry.
local function too_many_events(caller, steps)
  local events = 0
  for _, words in ipairs(steps) do
    if words[1] == 'EVENTS' then
      local _, ends = string.gsub(tostring(words[6] or ''), '\n', '')
      events = events + ends + 1
    end
  end
  if events > MOST_STEPS then return refused(caller, events, 'events', MOST_STEPS) end
end

-- Returns the steps; or nil and an error: there are too many, one is unknown, touches keys outside of the record's
-- installation, or rings where this user may not; or nil, nil and how far the run's spec was used, if that forbids them.
local function read_steps(caller, record, listed, apart)
  local home = home_of(record)
  if not home then return nil, redis.error_reply('ERR no key of a record') end
  if #listed > LONGEST_JSON then return nil, refused(caller, #listed, 'bytes of steps', LONGEST_JSON) end
  local steps, use, all_words = cjson.decode(listed), nil, 0
  if type(steps) ~= 'table' then return nil, redis.error_reply('ERR ' .. caller .. ': steps are a list') end
  if #steps > MOST_STEPS then return nil, refused(caller, #steps, 'steps', MOST_STEPS) end
  for number, words in ipairs(steps) do
    if type(words) ~= 'table' then return nil, redis.error_reply('ERR step ' .. number .. ' is no step') end
    all_words = all_words + #words
    if all_words > MOST_WORDS then return nil, refused(caller, all_words, 'words of steps', MOST_WORDS) end
    if #apart > 0 and not put_in(words, apart) then
      return nil, redis.error_reply('ERR step ' .. number .. ' has a word that was not told')
    end
    local name = words[1]
    local from, to = range_of_keys(words)
    if not from then return nil, redis.error_reply('ERR step ' .. number .. ' is no step') end
    for n = from, to do
      if string.sub(words[n] or '', 1, #home) ~= home then
        return nil, redis.error_reply('ERR step ' .. number .. ' leads out of this installation')
      end
    end
    if name == 'SPEND' then
      use = words
    elseif name == 'LPUSH' or name == 'RPUSH' then
      local problem = unrung(words[2])
      if problem then return nil, problem end
    end
  end
  local problem = too_many_events(caller, steps)
  if problem then return nil, problem end
  local word = use and spend(unpack(use, 2)) -- the first write
  if word then return nil, nil, word end
  return steps
end

-- Apply steps. A failed push costs only latency: the run is rung again.
local function take_steps(now, steps)
  for _, words in ipairs(steps) do
    local own = step[words[1]]
    if own then
      own(now, unpack(words, 2))
    else
      write(unpack(words))
    end
  end
end
