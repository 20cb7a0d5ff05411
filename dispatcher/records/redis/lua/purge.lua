-- Remove a run with all that is kept of it, if the record is as its author saw it. KEYS: the run's, the record first.
-- ARGV: the version seen, the id, the key of its idempotency key ('': none), and the indexes that hold it. Replies 1 if
-- it did.
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 0 end
redis.call('DEL', unpack(KEYS))
for n = 4, #ARGV do write('ZREM', ARGV[n], ARGV[2]) end
if ARGV[3] ~= '' and try('GET', ARGV[3]) == ARGV[2] then redis.call('DEL', ARGV[3]) end
return 1
