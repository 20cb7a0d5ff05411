-- Remove runs from an index in which their records don't place them, unless a record has changed since it was read.
-- KEYS: the index, the records. ARGV: id and version of each. Replies how many were removed.
local removed = 0
for n = 2, #KEYS do
  local id, version = ARGV[2 * n - 3], ARGV[2 * n - 2]
  if id and version and try('HGET', KEYS[n], 'version') == version then
    removed = removed + (try('ZREM', KEYS[1], id) or 0)
  end
end
return removed
