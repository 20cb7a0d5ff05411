-- Recreate streams that take no more entries, or have an entry ahead of the clock. Groups whose position is ahead are
-- destroyed; their readers create them again. KEYS: the streams. Replies the keys of those that were repaired.
local repaired = {}

local function field_of(info, name)
  for n = 1, #info, 2 do
    if info[n] == name then return info[n + 1] end
  end
end

for _, stream in ipairs(KEYS) do
  local info = redis.pcall('XINFO', 'STREAM', stream)
  local broken = is_foreign(info)
  if has_copied() then -- the entries of another stream: the next call repairs this one
    broken = false
  elseif broken or (not info.err and is_ahead(field_of(info, 'last-generated-id'))) then
    remake(stream)
    broken = true
  elseif not info.err and field_of(info, 'groups') > 0 then
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
