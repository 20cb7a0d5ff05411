-- Count rejections once. KEYS: rejections, the nonce of these. ARGV: clock offset, seconds to keep the nonce, kind, number.
local now = server_time(ARGV[1])
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then tally(KEYS[1], ARGV[3], now, math.max(whole(ARGV[4]), 1)) end
return 1
