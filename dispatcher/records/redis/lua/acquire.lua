-- Take a lease that is unchanged since the caller read it. KEYS: leases. ARGV: name, owner, owner and epoch expected
-- ('' and '' for no holder). A lease is stored as "epoch owner"; anything else has no holder. Replies the epoch, or 0.
local epoch, owner = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (.*)$')
if not epoch or #epoch > 15 then epoch, owner = '0', '' end
epoch = tonumber(epoch)
local expected = tonumber(ARGV[4])
if owner == ARGV[2] and (not expected or epoch == expected + 1) then return epoch end
if owner ~= ARGV[3] or (expected and epoch ~= expected) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d %s', epoch + 1, ARGV[2]))
return epoch + 1
