-- Add a report once. ARGV: keys of the inbox and of the mark of this report, seconds the mark stays, then fields and
-- values. (A user has different rights on the two keys: as KEYS, they would need the same.)
if redis.call('SET', ARGV[2], '1', 'NX', 'EX', ARGV[3]) then
  local added, why = pcall(add_entry, ARGV[1], unpack(ARGV, 4))
  if not added then
    redis.call('SET', ARGV[2], '0', 'PX', 1) -- it is not known, and may be sent again
    return redis.error_reply(why) -- pcall has made it a text; error would put the line's number before it
  end
end
return 1
