-- Recreate streams that take no more entries, or have an entry ahead of the clock. Groups whose position is ahead are
-- destroyed; their readers create them again. KEYS: the streams. Replies the keys of those that were repaired.
local repaired = {}

local function field_of(told, name)
  for n = 1, #told, 2 do
    if told[n] == name then return told[n + 1] end
  end
end

for _, stream in ipairs(KEYS) do
  local told = redis.pcall('XINFO', 'STREAM', stream)
  local broken = is_foreign(told)
  if broken or (not told.err and is_ahead(field_of(told, 'last-generated-id'))) then
    remake(stream)
    broken = true
  elseif not told.err and field_of(told, 'groups') > 0 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      if is_ahead(field_of(group, 'last-delivered-id')) then
        redis.call('XGROUP', 'DESTROY', stream, field_of(group, 'name'))
        broken = true
      end
    end
  end
  if broken then repaired[#repaired + 1] = stream end
end
return repaired
