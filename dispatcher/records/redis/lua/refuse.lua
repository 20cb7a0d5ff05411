-- Count a refusal once. KEYS: refusals, the mark of this one. ARGV: clock offset, seconds the mark stays, what it was.
local now = text(server_time(ARGV[1]))
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then
  count(KEYS[1], ARGV[3], 1)
  write('HSET', KEYS[1], ARGV[3] .. ':last', now)
end
return 1
