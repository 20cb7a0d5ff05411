-- Apply a change if the record is as its author saw it. KEYS: the record. ARGV: clock offset, the version seen, the
-- change's nonce, steps.
-- Replies: the time, if it is applied (now, or by an earlier call whose reply was lost); else the time and the fields stored.
local now = server_time(ARGV[1])
local stored = redis.call('HMGET', KEYS[1], 'version', 'change')
if stored[1] == ARGV[2] then
  take_steps(now, ARGV[4])
  return {text(now)}
end
if ARGV[3] ~= '' and stored[2] == ARGV[3] then
  return {text(now)}
end
return {text(now), redis.call('HGETALL', KEYS[1])}
