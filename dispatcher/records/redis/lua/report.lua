-- Add a report to an inbox once. ARGV: keys of the inbox and of the report's nonce, seconds to keep the nonce, then fields
-- and values. The keys aren't KEYS, which need equal rights: a runner's user has different ones on the two.
if redis.call('SET', ARGV[2], '1', 'NX', 'EX', ARGV[3]) then
  local added, why = pcall(add_entry, ARGV[1], unpack(ARGV, 4))
  if not added then
    redis.call('SET', ARGV[2], '0', 'PX', 1) -- so that the report may be sent again
    return redis.error_reply(why) -- a text after pcall; error() would put the line number before it
  end
end
return 1
