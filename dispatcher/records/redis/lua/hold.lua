-- Keep shared blobs for some more time. KEYS: the blobs. ARGV: seconds. Replies the keys of missing ones.
local missing = {}
for _, key in ipairs(KEYS) do
  if try('HEXISTS', key, 'parts') ~= 1 then
    missing[#missing + 1] = key
  elseif whole(redis.call('HGET', key, 'refs')) <= 0 then
    redis.call('EXPIRE', key, ARGV[1])
  end
end
return missing
