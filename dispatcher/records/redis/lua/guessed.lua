-- Apply a change to a run that its author hasn't read, if it is of that kind and was accepted and no more. KEYS: the
-- record. ARGV: clock offset, the kind, steps, the times that stand in them for that of acceptance and for now, and
-- names of fields. Replies: the time, and of a run to which it was applied what its author couldn't know: the time of
-- acceptance, and those fields. Else the time, false, and the fields stored.
local now = server_time(ARGV[1])
local stored = redis.call('HMGET', KEYS[1], 'version', 'kind', 'created_at', unpack(ARGV, 6))
local accepted = time_text(stored[3]) -- digits: whoever wrote the record writes no steps
if stored[1] == '1' and stored[2] == ARGV[2] and accepted then
  local listed = with_time(with_time(ARGV[3], ARGV[4], accepted), ARGV[5], text(now))
  local steps, problem, word = read_steps('guessed', KEYS[1], listed, {})
  if problem then return problem end
  if not word then
    take_steps(now, steps)
    return {text(now), accepted, {unpack(stored, 4)}}
  end
end
return {text(now), false, record_fields(KEYS[1])}
