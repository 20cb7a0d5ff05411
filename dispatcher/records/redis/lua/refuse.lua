-- Count a refusal once. KEYS: refusals, the mark of this one. ARGV: clock offset, seconds the mark stays, what it was.
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then
  add_to(KEYS[1], ARGV[3], 1)
  redis.call('HSET', KEYS[1], ARGV[3] .. ':last', text(server_time(ARGV[1])))
end
return 1
