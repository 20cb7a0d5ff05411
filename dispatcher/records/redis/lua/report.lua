-- Add a report once. KEYS: the inbox, the mark of this report. ARGV: seconds the mark stays, then fields and values.
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[1]) then
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
end
return 1
