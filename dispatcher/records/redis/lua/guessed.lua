-- Apply a change to a run that its author hasn't read, if it is of that kind and was accepted and no more. KEYS: the
-- record. ARGV: clock offset, the kind, steps, what stands in them for the time of acceptance and for now (as patterns),
-- and names of fields. Replies: the time, and of a run to which it was applied what its author couldn't know: the time of
-- acceptance, and those fields. Else the time, false, and the fields stored.
local now = server_time(ARGV[1])
local stored = redis.call('HMGET', KEYS[1], 'version', 'kind', 'created_at', unpack(ARGV, 6))
if stored[1] == '1' and stored[2] == ARGV[2] then
  local steps = string.gsub(ARGV[3], ARGV[4], stored[3])
  steps = string.gsub(steps, ARGV[5], text(now))
  take_steps(now, steps)
  return {text(now), stored[3], {unpack(stored, 4)}}
end
return {text(now), false, redis.call('HGETALL', KEYS[1])}
