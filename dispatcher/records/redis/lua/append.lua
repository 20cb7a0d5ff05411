-- Add log lines of one attempt. Lines that are stored already are dropped.
-- KEYS: the run's lines, the last number of each numbering. ARGV: the key of its record (only read), seconds to keep
-- lines without a record, the attempt, the name of the lines' numbering, then for each line number, time, stream, level
-- and text.
local record, stray, attempt, numbering = unpack(ARGV, 1, 4)
if (#ARGV - 4) % 5 ~= 0 then return redis.error_reply('ERR append: a line has five words') end
for n = 5, #ARGV, 5 do
  if #ARGV[n] > 15 or not string.find(ARGV[n], '^%d+$') then return redis.error_reply('ERR append: a line has a number') end
end
local last = whole(try('HGET', KEYS[2], numbering))
local before = last
for n = 5, #ARGV, 5 do
  local number = tonumber(ARGV[n])
  if number > last then
    add_entry(KEYS[1], 'attempt', attempt, 'number', ARGV[n], 'time', ARGV[n + 1], 'stream', ARGV[n + 2],
      'level', ARGV[n + 3], 'text', ARGV[n + 4])
    last = number
  end
end
if last == before then return 0 end
write('HSET', KEYS[2], numbering, string.format('%d', last))
local left = redis.call('PTTL', record)
for n = 1, 2 do
  if left == -2 then
    redis.call('EXPIRE', KEYS[n], stray)
  elseif left == -1 then
    redis.call('PERSIST', KEYS[n])
  else
    redis.call('PEXPIRE', KEYS[n], left)
  end
end
return 1
