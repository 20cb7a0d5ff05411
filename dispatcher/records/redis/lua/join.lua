-- Create the group of a durable subscriber. KEYS: all events, the subscribers. ARGV: the subscriber, '1' if this process
-- has joined it before. A new one starts with the next event; one whose group is lost starts with the oldest event.
local start = '$'
if ARGV[2] == '1' or redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1 then start = '0' end
redis.call('SADD', KEYS[2], ARGV[1])
local function make() return redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], start, 'MKSTREAM') end
local made = make()
if is_foreign(made) then
  drop(KEYS[1], made)
  made = make()
end
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
return 1
