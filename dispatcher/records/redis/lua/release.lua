-- Give a lease back, if it is as given. KEYS: leases. ARGV: name, the lease as kept, the lease of nobody.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1
