-- Accept a run. KEYS: its record, and its idempotency key if it has one. ARGV: clock offset, run id, what the keys of
-- records begin with, steps, then its shared blobs.
-- Replies: the time of acceptance; or the fields of the record that is there already (accepted before, or an earlier run
-- with the same key); or '' and the shared blobs that are missing.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return redis.call('HGETALL', KEYS[1])
end
if KEYS[2] then
  local earlier = redis.call('GET', KEYS[2])
  if earlier then
    local fields = redis.call('HGETALL', ARGV[3] .. earlier)
    if #fields > 0 then return fields end
  end
end
local missing = {''}
for n = 5, #ARGV do
  if redis.call('HEXISTS', ARGV[n], 'parts') == 0 then missing[#missing + 1] = ARGV[n] end
end
if #missing > 1 then return missing end
for n = 5, #ARGV do
  redis.call('HINCRBY', ARGV[n], 'refs', 1)
  redis.call('PERSIST', ARGV[n])
end
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[2]) end
local now = server_time(ARGV[1])
take_steps(now, ARGV[4])
return text(now)
