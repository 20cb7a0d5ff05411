-- Remove a run with all its keys, if the record still has the version that the caller read. KEYS: the run's, the record
-- first. ARGV: the version, the id, the key of its idempotency key ('': none), and the indexes that hold it. Replies 1 if
-- the run was removed.
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 0 end
redis.call('DEL', unpack(KEYS))
for n = 4, #ARGV do write('ZREM', ARGV[n], ARGV[2]) end
if ARGV[3] ~= '' and try('GET', ARGV[3]) == ARGV[2] then redis.call('DEL', ARGV[3]) end
return 1
