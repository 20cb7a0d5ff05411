-- The server's clock, for functions that write times.

local function server_time(offset)
  local now, ahead = redis.call('TIME'), tonumber(offset)
  if not ahead or not (math.abs(ahead) < 1e12) then error(redis.error_reply('ERR the offset of the clock is none')) end
  return tonumber(now[1]) + tonumber(now[2]) / 1000000 + ahead
end

-- Seventeen digits give the same double back in Python and in sorted sets.
local function text(number)
  return string.format('%.17g', number)
end

-- A stored time, which anybody may have written, as digits only; nothing if it isn't a time.
local function time_text(stored)
  local number = stored and tonumber(stored)
  if number and number >= 0 and number < 1e12 then return text(number) end
end
