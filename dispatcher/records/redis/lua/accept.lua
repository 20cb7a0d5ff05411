-- Accept runs that have almost everything in common. ARGV: that, in JSON (acceptance.py), then six words for each run:
-- its id, spec, signature, digest of the spec, idempotency key ('': none) and doorbell ('': rung elsewhere).
-- Replies for each run: the time of acceptance, or the fields of the record that is there already (accepted before, or an
-- earlier run with the same key); or '' and the shared blobs that are missing, and then nothing was written; or an error,
-- and then nothing was written either.
local MOST_RUNS, MOST_INDEXES = 100, 200 -- as in acceptance.py; indexes of one run: its labels' and tags', and a few
if #ARGV > 1 + 6 * MOST_RUNS then return redis.error_reply('ERR at most ' .. MOST_RUNS .. ' runs in one call') end
local all = cjson.decode(ARGV[1])
local now = server_time(all.offset)
local ids, times, doorbells, reply = {}, {}, {}, {}

-- What is stored of a run; of what is no record, something that is none either.
local function fields_of(id)
  local fields = redis.pcall('HGETALL', all.run .. id)
  return fields.err and {'id', ''} or fields
end

local function earlier(id, key)
  local fields = fields_of(id)
  if #fields == 0 and key ~= '' then
    local other = redis.call('GET', all.key .. key)
    if other then fields = fields_of(other) end
  end
  if #fields > 0 then return fields end
end

local function missing_blobs()
  local missing = {''}
  for _, blob in ipairs(all.blobs) do
    if redis.call('HEXISTS', blob, 'parts') == 0 then missing[#missing + 1] = blob end
  end
  if #missing > 1 then return missing end
end

-- What stands against accepting any of them.
local function problem()
  local indexes = 0
  for _, place in ipairs(all.places) do indexes = indexes + #place[2] end
  if indexes > MOST_INDEXES then return redis.error_reply('ERR labels and tags: a run has too many') end
  for n = 2, #ARGV, 6 do
    if not string.find(ARGV[n], '^[%w_-]+$') then return redis.error_reply('ERR id: must be letters and digits') end
  end
  return unrung(all.list) or use_queue(now, unpack(all.queue))
end

local function accept(id, spec, signature, digest, key, doorbell)
  local record = all.run .. id
  times[#times + 1] = now + #times / 1000000 -- to accept one takes longer than a microsecond: so they stay in order
  local time = text(times[#times])
  redis.call('HSET', record, 'id', id, 'spec_bytes', spec, 'signature', signature, 'spec_digest', digest,
    'created_at', time, 'queued_at', time, 'rung_at', time, unpack(all.fields))
  if key ~= '' then
    redis.call('HSET', record, 'key', key)
    redis.call('SET', all.key .. key, id)
  end
  local fact = all.fact[1] .. id .. all.fact[2]
  add_entry(record .. all.its_events, 'fact', fact, 'time', time)
  add_entry(all.events, 'fact', fact, 'time', time)
  redis.call('PUBLISH', all.topic .. id, time .. '\n' .. fact)
  ids[#ids + 1] = id
  if doorbell ~= '' then doorbells[#doorbells + 1] = doorbell end
  return time
end

for n = 2, #ARGV, 6 do
  local fields = earlier(ARGV[n], ARGV[n + 4])
  if not fields then
    local reason = #ids == 0 and (missing_blobs() or problem())
    if reason then return reason end
  end
  reply[#reply + 1] = fields or accept(unpack(ARGV, n, n + 5))
end
if #ids == 0 then return reply end

for _, blob in ipairs(all.blobs) do
  add_to(blob, 'refs', #ids)
  redis.call('PERSIST', blob)
end
for _, place in ipairs(all.places) do -- so many seconds from now, in these indexes
  local members = {}
  for n, id in ipairs(ids) do members[2 * n - 1], members[2 * n] = text(times[n] + place[1]), id end
  for _, index in ipairs(place[2]) do redis.call('ZADD', index, unpack(members)) end
end
if #doorbells > 0 then redis.call('LPUSH', all.list, unpack(doorbells)) end
return reply
