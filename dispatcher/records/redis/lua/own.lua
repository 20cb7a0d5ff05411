-- Store parts of a run's own blob, to be kept as long as its record. KEYS: the run's blobs. ARGV: the key of its record
-- (only read), seconds to keep them without a record, then fields and values.
if #ARGV % 2 ~= 0 then return redis.error_reply('ERR own: each field has a value') end
for n = 3, #ARGV, 2 do write('HSET', KEYS[1], ARGV[n], ARGV[n + 1]) end
local left = redis.call('PTTL', ARGV[1])
if left == -2 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
elseif left == -1 then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], left)
end
return 1
