-- Accept runs that have almost everything in common.
-- ARGV: the common part, in JSON (run_scripts/accept.py), then six words for each run: id, spec, signature, digest of the
-- spec, idempotency key ('': none) and doorbell ('': rung elsewhere).
-- Replies for each run: the time of acceptance, or the fields of the record that is stored already (the same run, or an
-- earlier one with the same key). Or '' and the keys of missing shared blobs, or an error; nothing was written then.
-- The record and its key are written last, so that no run is found that wasn't accepted completely.
if #ARGV < 7 or #ARGV % 6 ~= 1 then return redis.error_reply('ERR accept: a run has six words') end
if #ARGV[1] > LONGEST_JSON then return refused('accept', #ARGV[1], 'bytes of JSON', LONGEST_JSON) end
local all = cjson.decode(ARGV[1])

-- The error if something is out of bounds, or an id isn't valid.
local function excess()
  if #all.blobs > MOST_BLOBS then return refused('accept', #all.blobs, 'blobs', MOST_BLOBS) end
  if #all.fields > 2 * MOST_FIELDS then return refused('accept', #all.fields, 'words of fields', 2 * MOST_FIELDS) end
  if #all.places > MOST_INDEXES then return refused('accept', #all.places, 'places', MOST_INDEXES) end
  local indexes = 0
  for _, place in ipairs(all.places) do
    if type(place[1]) ~= 'number' then return redis.error_reply('ERR accept: a place is so many seconds away') end
    indexes = indexes + #place[2]
  end
  if indexes > MOST_INDEXES then -- labels and tags
    return refused('accept', indexes, 'indexes of a run, which has too many labels and tags,', MOST_INDEXES)
  end
  for n = 2, #ARGV, 6 do
    if #ARGV[n] > 64 or not string.find(ARGV[n], '^%w[%w_.-]*$') then
      return redis.error_reply('ERR id: must be letters and digits')
    end
  end
end

local too_many = excess()
if too_many then return too_many end
local now = server_time(all.offset)

-- The fields of the record of an id; with a key, only if the record has that id and key.
local function standing(id, key)
  local record = all.run .. id
  local fields = redis.call('EXISTS', record) == 1 and record_fields(record) or {}
  if #fields == 0 then return nil end
  if not key then return fields end
  local values = {}
  for n = 1, #fields, 2 do values[fields[n]] = fields[n + 1] end
  if values.id == id and values.key == key then return fields end
end

local function earlier(id, key)
  local fields = standing(id)
  if fields or key == '' then return fields end
  local other = try('GET', all.key .. key)
  return other and #other <= 64 and standing(other, key) or nil
end

local function missing_blobs()
  local missing = {''}
  for _, blob in ipairs(all.blobs) do
    if try('HEXISTS', blob, 'parts') ~= 1 then missing[#missing + 1] = blob end
  end
  if #missing > 1 then return missing end
end

-- Runs to accept: where their words begin. A run or key that occurs twice in this call is accepted once.
local starts, by_id, by_key, reply = {}, {}, {}, {}
for n = 2, #ARGV, 6 do
  local id, key = ARGV[n], ARGV[n + 4]
  local twin = by_id[id] or by_key[key]
  local fields = not twin and earlier(id, key)
  if not twin and not fields then
    starts[#starts + 1] = n
    by_id[id] = id
    if key ~= '' then by_key[key] = id end
  end
  reply[#reply + 1] = fields or {twin = twin}
end
if #starts == 0 then return reply end
local reason = missing_blobs() or unrung(all.list) or use_queue(now, unpack(all.queue))
if reason then return reason end

for _, blob in ipairs(all.blobs) do
  if count(blob, 'refs', #starts) == #starts then redis.call('PERSIST', blob) end
end
local times, texts = {}, {}
for n = 1, #starts do
  times[n] = now + (n - 1) / 1000000 -- accepting one takes longer than a microsecond, so they stay in order
  texts[n] = text(times[n])
end
for _, place in ipairs(all.places) do -- seconds from now, and indexes
  local members = {}
  for n, start in ipairs(starts) do members[2 * n - 1], members[2 * n] = text(times[n] + place[1]), ARGV[start] end
  for _, index in ipairs(place[2]) do write('ZADD', index, unpack(members)) end
end

local doorbells, accepted = {}, {}
for n, start in ipairs(starts) do
  local id, spec, signature, digest, key, doorbell = unpack(ARGV, start, start + 5)
  local record, time, fact = all.run .. id, texts[n], all.fact[1] .. id .. all.fact[2]
  add_entry(record .. all.its_events, 'fact', fact, 'time', time)
  add_entry(all.events, 'fact', fact, 'time', time)
  write('HSET', record, 'id', id, 'spec_bytes', spec, 'signature', signature, 'spec_digest', digest,
    'created_at', time, 'queued_at', time, 'rung_at', time, unpack(all.fields))
  if key ~= '' then
    redis.call('HSET', record, 'key', key)
    redis.call('SET', all.key .. key, id)
  end
  redis.call('PUBLISH', all.topic .. id, time .. '\n' .. fact)
  accepted[id] = time
  if doorbell ~= '' then doorbells[#doorbells + 1] = doorbell end
end
if #doorbells > 0 then write('LPUSH', all.list, unpack(doorbells)) end -- if that fails, they are rung again

local new = 0
for n, answer in ipairs(reply) do
  if answer.twin then
    reply[n] = record_fields(all.run .. answer.twin)
  elseif #answer == 0 then
    new = new + 1
    reply[n] = accepted[ARGV[starts[new]]]
  end
end
return reply
