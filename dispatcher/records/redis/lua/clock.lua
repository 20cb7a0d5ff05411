-- The server's clock, for scripts that write times.

local function server_time(offset)
  local now = redis.call('TIME')
  return tonumber(now[1]) + tonumber(now[2]) / 1000000 + tonumber(offset)
end

-- Seventeen digits give the same double back in Python and in sorted sets.
local function text(number)
  return string.format('%.17g', number)
end
