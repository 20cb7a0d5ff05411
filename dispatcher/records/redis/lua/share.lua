-- Store a shared blob. KEYS: the blob. ARGV: seconds to keep it without a run, the number of its parts ('': only check),
-- and the data of a blob of one part; larger ones' parts were stored before. Replies 1 if the blob is stored now.
if redis.call('HEXISTS', KEYS[1], 'parts') == 0 then
  if ARGV[2] == '' then return 0 end
  if ARGV[3] then redis.call('HSET', KEYS[1], '0', ARGV[3]) end
  redis.call('HSET', KEYS[1], 'parts', ARGV[2])
end
if whole(redis.call('HGET', KEYS[1], 'refs')) <= 0 then
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return 1
