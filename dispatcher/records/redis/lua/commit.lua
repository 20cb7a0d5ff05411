-- Apply a change if the record still has the version that its author read.
-- KEYS: the record, and the leases if one is checked. ARGV: clock offset, the version, steps; name of the lease and how it
-- must be stored; for a change that ends an attempt which hasn't started, the key of its runner's claim, and a void claim
-- ('': none); then long values that the steps refer to.
-- Replies the time if the change was applied. Otherwise the time, and: the fields stored, where another change came first
-- (or this one, which its author recognises by the nonce); 'passed', if the lease has changed; 'claimed' and the claim
-- that stands; or 'used' and how far the run's spec was used, if that forbids the steps.
local now = server_time(ARGV[1])
if KEYS[2] and redis.call('HGET', KEYS[2], ARGV[4]) ~= ARGV[5] then return {text(now), 'passed'} end
if redis.call('HGET', KEYS[1], 'version') == ARGV[2] then
  local claim = ARGV[6] and ARGV[6] ~= '' and try('GET', ARGV[6])
  if claim and claim ~= ARGV[7] and #claim <= LONGEST_CLAIM then return {text(now), 'claimed', claim} end
  local steps, problem, word = read_steps('commit', KEYS[1], ARGV[3], {unpack(ARGV, 8)})
  if problem then return problem end
  if word then return {text(now), 'used', word} end
  take_steps(now, steps)
  if claim then redis.call('DEL', ARGV[6]) end
  return {text(now)}
end
return {text(now), record_fields(KEYS[1])}
