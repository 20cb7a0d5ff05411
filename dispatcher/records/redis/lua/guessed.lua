-- Apply a change to a run that its author predicted, if it has the predicted kind and hasn't changed since its acceptance.
-- KEYS: the record. ARGV: clock offset, the kind, steps, the placeholders in them for the time of acceptance and for now,
-- and names of fields. Replies the time, the time of acceptance, and the values of those fields. If the prediction was
-- wrong: the time, false, and the fields stored.
local now = server_time(ARGV[1])
local stored = redis.call('HMGET', KEYS[1], 'version', 'kind', 'created_at', unpack(ARGV, 6))
local accepted = time_text(stored[3]) -- only digits: whoever wrote the record can't add steps
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
