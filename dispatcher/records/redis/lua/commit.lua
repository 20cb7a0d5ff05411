-- Apply a change if the record is as its author saw it. KEYS: the record, and the leases if one is to be checked. ARGV:
-- clock offset, the version seen, steps, of that lease its name and how it must be kept; for a change that ends an
-- attempt which hasn't started, the key of its runner's claim, and a claim that was found to be nobody's ('': no matter);
-- then words of the steps that are told apart.
-- Replies: the time, if it was applied; else the time and the fields stored: what came first, or the same change again,
-- which its author knows by its nonce; or the time and 'passed', if the lease isn't its author's any more; or the time,
-- 'claimed' and the claim that stands; or 'used' and how far the run's spec was used, if that doesn't allow the steps.
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
