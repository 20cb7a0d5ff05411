-- Commands that come to their end, whatever stands under their keys. The server undoes nothing that a function wrote before
-- it failed; so a value that nobody can use, put there by whoever could, fails nothing here.

-- Whether a reply says that a key holds another type.
local function is_foreign(reply)
  return type(reply) == 'table' and reply.err and string.find(reply.err, '^WRONGTYPE') ~= nil
end

-- Run a command; nothing where its key holds another type, which is left as it is.
local function try(...)
  local reply = redis.pcall(...)
  if is_foreign(reply) then return nil end
  if type(reply) == 'table' and reply.err then error(reply) end
  return reply
end

-- A whole number as it is kept; 0 if it is none.
local function whole(kept)
  if type(kept) ~= 'string' or #kept > 15 or not string.find(kept, '^%-?%d+$') then return 0 end
  return tonumber(kept)
end

-- Count in a hash, and give the count. What is no number, or one too high, begins anew.
local function count(key, field, by)
  local reply = redis.pcall('HINCRBY', key, field, by)
  if type(reply) ~= 'table' or not reply.err then return reply end
  local is_none = string.find(reply.err, 'not an integer', 1, true) or string.find(reply.err, 'overflow', 1, true)
  if not is_none and not is_foreign(reply) then error(reply) end
  try('HSET', key, field, math.max(by, 0))
  return math.max(by, 0)
end

-- Count one refusal of a kind, and note when it was.
local function tally(refusals, what, now)
  count(refusals, what, 1)
  try('HSET', refusals, what .. ':last', text(now))
end

-- Count a malformed entry, where this user may. To ask leaves nothing in the server's log of refusals.
local function tally_entry(key)
  local home = string.match(key, '^([^:]*::)')
  local refusals = home and home .. 'refusals'
  if refusals and redis.acl_check_cmd('HINCRBY', refusals, 'entry', '1') then tally(refusals, 'entry', server_time(0)) end
end

-- Drop a key of another type, as the users of the security page may: by letting it expire. Who may not do so has the
-- error that it caused.
local function drop(key, reply)
  if not redis.acl_check_cmd('EXPIRE', key, '0') then error(reply) end
  redis.call('EXPIRE', key, 0)
  redis.log(redis.LOG_WARNING, 'dropped, as it was of another type: ' .. key)
  tally_entry(key)
end

-- A write to a key. Of another type, a run's own is made anew; one of all runs is left as it is.
local function write(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not is_foreign(reply) then error(reply) end
  if not string.find(key, '^[^:]*::run:') then return nil end
  drop(key, reply)
  return redis.call(command, key, ...)
end

-- A record's fields, as names and values; nothing of a key of another type. Only what this release reads (RECORD_FIELDS,
-- from scripts.py): a hash may have a million more.
local function record_fields(record)
  local values, fields = try('HMGET', record, unpack(RECORD_FIELDS)), {}
  for n, name in ipairs(RECORD_FIELDS) do
    if values and values[n] then fields[#fields + 1], fields[#fields + 2] = name, values[n] end
  end
  return fields
end
