-- Apply a prepared change to a run, if its record is as the template expects.
-- KEYS: the record. ARGV: clock offset, the template's digest, the template ('': the server may have it), and values.
-- Replies 'template' if the server doesn't have it. Otherwise the time, the time of acceptance, and the values of the fields
-- that the template replies. If the record is another, or how far its spec was used forbids the steps: the time, false, and
-- the fields stored.
local home = home_of(KEYS[1])
if not home then return redis.error_reply('ERR no key of a record') end
local template, problem = find_template(ARGV[2], ARGV[3], home)
if problem then return problem end
if not template then return 'template' end
local now = server_time(ARGV[1])
local stored = redis.call('HMGET', KEYS[1], unpack(template.fields))
local accepted, expected = time_text(stored[1]), #template.values
local fits = accepted
for n = 1, expected do fits = fits and stored[n + 1] == template.values[n] end
if fits then
  local values = {text(now), accepted, unpack(ARGV, 4)}
  local size = filled_size(template, values)
  if size > LONGEST_JSON then return refused('prepared', size, 'bytes of steps', LONGEST_JSON) end
  local steps = fill(template, values)
  if not steps then return redis.error_reply('ERR prepared: a value is missing') end
  local excess = too_many_events('prepared', steps)
  if excess then return excess end
  if not (template.use and spend(unpack(steps[template.use], 2))) then
    take_steps(now, steps)
    return {text(now), accepted, {unpack(stored, expected + 2)}}
  end
end
return {text(now), false, record_fields(KEYS[1])}
