-- Claim an attempt for its runner. The runner's user can't write records, so the claim is stored under a key of its own;
-- the supervisor changes the record when it reads the report.
-- ARGV: clock offset; keys of the record, the claim and the inbox; seconds to keep the claim, attempt, holder, a void
-- claim, the report in JSON, and its fields and values. The keys aren't KEYS, for which a user needs the right to write.
-- Replies the time of the claim, and the record's fields. Otherwise the time, the reason, and the state or the claim that
-- stands.
local now = text(server_time(ARGV[1]))
local record, claim, inbox, seconds, attempt, holder, void, report = unpack(ARGV, 2, 9)
local stored = redis.call('HMGET', record, 'state', 'attempt', 'holder')
local state, number = stored[1], stored[2] or '1'
if not state then return {now, 'unknown'} end
if number == attempt and stored[3] == holder then return {now, record_fields(record)} end
if number ~= attempt or (state ~= 'PROVISIONING' and state ~= 'PENDING') then return {now, 'closed', state} end
local stands = try('GET', claim)
if stands and stands ~= void and #stands <= LONGEST_CLAIM then
  local at, other = string.match(stands, '^([^\n]*)\n([^\n]*)\n')
  if other ~= holder then return {now, 'claimed', stands} end
  return {at, record_fields(record)}
end
add_entry(inbox, 'time', now, unpack(ARGV, 10))
redis.call('SET', claim, now .. '\n' .. holder .. '\n' .. report, 'EX', seconds)
return {now, record_fields(record)}
