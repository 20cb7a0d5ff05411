-- Commands that succeed whatever type their keys have. The server undoes nothing that a function wrote before it failed,
-- so a useless value, which anybody may have stored, must not make a function fail.

-- Return true if a reply says that a key holds another type.
local function is_foreign(reply)
  return type(reply) == 'table' and reply.err and string.find(reply.err, '^WRONGTYPE') ~= nil
end

-- Call a command. Returns nothing if its key holds another type, and leaves that as it is.
local function try(...)
  local reply = redis.pcall(...)
  if is_foreign(reply) then return nil end
  if type(reply) == 'table' and reply.err then error(reply) end
  return reply
end

-- A stored whole number; 0 if it isn't one.
local function whole(stored)
  if type(stored) ~= 'string' or #stored > 15 or not string.find(stored, '^%-?%d+$') then return 0 end
  return tonumber(stored)
end

-- Count in a hash and return the count. A value that isn't a number, or is too high, starts again.
local function count(key, field, by)
  local reply = redis.pcall('HINCRBY', key, field, by)
  if type(reply) ~= 'table' or not reply.err then return reply end
  local is_none = string.find(reply.err, 'not an integer', 1, true) or string.find(reply.err, 'overflow', 1, true)
  if not is_none and not is_foreign(reply) then error(reply) end
  try('HSET', key, field, math.max(by, 0))
  return math.max(by, 0)
end

-- Count rejections of a kind, one unless told otherwise, and note their time.
local function tally(refusals, kind, now, number)
  count(refusals, kind, number or 1)
  try('HSET', refusals, kind .. ':last', text(now))
end

-- Count a malformed entry if this user may. The check adds nothing to the server's ACL log.
local function tally_entry(key)
  local home = string.match(key, '^([^:]*::)')
  local refusals = home and home .. 'refusals'
  if refusals and redis.acl_check_cmd('HINCRBY', refusals, 'entry', '1') then tally(refusals, 'entry', server_time(0)) end
end

-- A key as it may be shown: others choose its name.
local function shown(key)
  local printable = string.gsub(string.sub(key, 1, 120), '[^\32-\126]', '?')
  return printable
end

-- Write to the server's log what happened to a key; once in a call, which may concern many.
local function note(event, key, reason)
  if logged then return end
  logged = true
  redis.log(redis.LOG_WARNING, event .. ' ' .. shown(key) .. ': ' .. reason)
end

-- Drop a key of another type by letting it expire, which the users of the security page may do. Other users get the error
-- of the command.
local function drop(key, reply)
  if not redis.acl_check_cmd('EXPIRE', key, '0') then error(reply) end
  redis.call('EXPIRE', key, 0)
  note('Dropped', key, 'its value had another type')
  tally_entry(key)
end

-- Write to a key. If it has another type, a run's key is replaced; a key of the installation is left as it is.
local function write(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not is_foreign(reply) then error(reply) end
  if not string.find(key, '^[^:]*::run:') then return nil end
  drop(key, reply)
  return redis.call(command, key, ...)
end

-- A record's fields, as names and values; empty if the key has another type. Only the fields of this release
-- (RECORD_FIELDS, from scripts.py): a hash may have a million more.
local function record_fields(record)
  local values, fields = try('HMGET', record, unpack(RECORD_FIELDS)), {}
  for n, name in ipairs(RECORD_FIELDS) do
    if values and values[n] then fields[#fields + 1], fields[#fields + 2] = name, values[n] end
  end
  return fields
end
