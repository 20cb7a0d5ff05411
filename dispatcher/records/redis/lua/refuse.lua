-- Count a rejection once. KEYS: rejections, the nonce of this one. ARGV: clock offset, seconds to keep the nonce, kind.
local now = server_time(ARGV[1])
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then tally(KEYS[1], ARGV[3], now) end
return 1
