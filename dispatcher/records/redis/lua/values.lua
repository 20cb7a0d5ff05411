-- Values that others may have written: a number that isn't one, a key of another type. Each costs what it stands for, and
-- no function fails over it.

-- A whole number as stored, or 0.
local function number_of(stored)
  return stored and #stored <= 15 and string.find(stored, '^-?%d+$') and tonumber(stored) or 0
end

-- Add to a field, which begins anew where it holds no number, or one too high.
local function add_to(key, field, count)
  local sum = redis.pcall('HINCRBY', key, field, count)
  if type(sum) == 'number' then return sum end
  if string.find(sum.err, 'WRONGTYPE') then error(sum) end
  redis.call('HSET', key, field, count)
  return count
end

-- Count a malformed entry, where this user may. To ask leaves nothing in the server's log of refusals.
local function count_malformed(key)
  local home = string.match(key, '^(.-::)')
  local tallies = home and home .. 'refusals'
  if tallies and redis.acl_check_cmd('HINCRBY', tallies, 'entry', '1') then
    add_to(tallies, 'entry', 1)
    redis.call('HSET', tallies, 'entry:last', redis.call('TIME')[1])
  end
end

-- Run a command on a key of one run; one of another type isn't ours, and is dropped first.
local function own_key(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(reply.err, 'WRONGTYPE') then error(reply) end
  redis.call('EXPIRE', key, 0) -- submitters and runners may do this, but not DEL
  redis.log(redis.LOG_WARNING, 'dropped, as it was of another type: ' .. key)
  count_malformed(key)
  return redis.call(command, key, ...)
end
