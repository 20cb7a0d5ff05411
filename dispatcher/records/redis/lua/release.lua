-- Release a lease, if it is unchanged. KEYS: leases. ARGV: name, the lease as stored, the lease without a holder.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1
