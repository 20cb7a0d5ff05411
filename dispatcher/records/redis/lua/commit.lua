-- Apply a change if the record is as its author saw it. KEYS: the record. ARGV: clock offset, the version seen, steps.
-- Replies: the time, if it was applied; else the time and the fields stored: what came first, or the same change again,
-- which its author knows by its nonce.
local now = server_time(ARGV[1])
if redis.call('HGET', KEYS[1], 'version') == ARGV[2] then
  take_steps(now, ARGV[3])
  return {text(now)}
end
return {text(now), redis.call('HGETALL', KEYS[1])}
