-- Adding entries to streams, and recreating streams. Others may add entries with ids of their choice. After an id far ahead
-- of the clock no entries can be added, or readers miss them. Such a stream is recreated: entries keep their ids, except
-- those ahead of the clock. A key of another type is replaced by a stream.

local AHEAD = 86400000 -- milliseconds by which an id may be ahead of the server's clock; as in streams.py
local KEPT, MOVED, LONGEST = 10000, 1000, 100 -- most entries kept, and moved from ahead; words of an entry
local CHUNK = 50 -- entries read at once
local bound = 0 -- the highest milliseconds that aren't ahead, when last computed

local function find_bound()
  bound = tonumber(redis.call('TIME')[1]) * 1000 + AHEAD
  return bound
end

local function is_ahead(id)
  local milliseconds = tonumber(string.match(id, '^%d+'))
  return milliseconds > bound and milliseconds > find_bound()
end

local function put_back(stream, id, words)
  if #words <= LONGEST then redis.call('XADD', stream, id, unpack(words)) end
end

-- Return true if this user may recreate a stream. The check adds nothing to the server's ACL log.
local function may_remake(stream)
  return redis.acl_check_cmd('XREVRANGE', stream, '+', '-') and redis.acl_check_cmd('EXPIRE', stream, '0')
end

-- The latest entries between two ids, latest first: at most some, and as many as this call has room for.
local function latest(stream, to, from, most)
  local entries = {}
  while #entries < most and room.words > 0 and room.bytes > 0 do
    local chunk = try('XREVRANGE', stream, to, from, 'COUNT', math.min(CHUNK, most - #entries)) or {}
    for _, entry in ipairs(chunk) do
      room.words = room.words - #entry[2]
      for _, word in ipairs(entry[2]) do room.bytes = room.bytes - #word end
      if room.words < 0 or room.bytes < 0 then return entries end
      entries[#entries + 1] = entry
    end
    if #chunk < CHUNK then return entries end
    to = '(' .. chunk[#chunk][1]
  end
  return entries
end

-- Return true if this call has copied entries of another stream.
local function has_copied()
  return room.words < MOST_COPIED
end

-- Recreate a stream. Its groups are lost; their readers create them again. All streams of a call share its room: otherwise
-- one call could block the server for as long as somebody has prepared streams.
local function remake(stream)
  local most = find_bound()
  local moved = latest(stream, '+', string.format('%d', most + 1), MOVED)
  local entries = latest(stream, string.format('%d', most), '-', KEPT)
  local left = redis.acl_check_cmd('PTTL', stream) and redis.call('PTTL', stream) or 0
  redis.call('EXPIRE', stream, 0) -- submitters may do this, but not DEL
  for n = #entries, 1, -1 do put_back(stream, entries[n][1], entries[n][2]) end
  for n = #moved, 1, -1 do put_back(stream, '*', moved[n][2]) end
  if left > 0 then redis.call('PEXPIRE', stream, left) end
  note('Recreated', stream, 'an entry was far ahead of the clock, or it was not a stream')
end

-- Add an entry. A stream that takes no entries, or soon won't, is recreated if this user may. Otherwise the error says so,
-- in words that make senders try again.
local function add_entry(stream, ...)
  local id = redis.pcall('XADD', stream, '*', ...)
  local failed = type(id) == 'table'
  if failed and not is_foreign(id) and not string.find(id.err, 'exhausted', 1, true) then error(id) end
  if not failed and not is_ahead(id) then return end
  local may = may_remake(stream)
  if failed and not may then
    error(redis.error_reply('ERR ' .. shown(stream) .. ' takes no entries until a worker has recreated it'))
  end
  if may and (failed or not has_copied()) then -- what can wait is left to the next writer, who copies the entries
    remake(stream)
    tally_entry(stream)
  end
  if failed then redis.call('XADD', stream, '*', ...) end
end
