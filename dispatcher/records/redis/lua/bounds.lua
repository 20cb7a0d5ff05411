-- Bounds of a call. Anybody who may call a function may pass anything, and the server does nothing else meanwhile, so
-- each function checks them first. Our senders stay below them by sending portions (bounds.py).

local MIB = 1048576
local LONGEST_JSON = MIB / 2 -- bytes of a document: reading a list of empty lists takes a tenth of a second
local MOST_RUNS, MOST_INDEXES, MOST_BLOBS, MOST_FIELDS = 100, 200, 16, 200 -- of one accept; indexes and fields of a run
local MOST_STEPS, MOST_WORDS, MOST_APART = 500, 4000, 64 -- of a change
local MOST_LINES, MOST_HELD, MOST_REPAIRED, MOST_DISPLACED = 500, 100, 16, 100
local LONGEST_CLAIM = MIB

-- For each function: most keys, most arguments, most bytes of both.
local most = {
  accept = {0, 1 + 6 * MOST_RUNS, 24 * MIB},
  acquire = {1, 4, MIB},
  announce = {3, 3, 16 * MIB},
  append = {2, 4 + 5 * MOST_LINES, 8 * MIB},
  beat = {3, 2, MIB},
  claim = {0, 9 + 64, LONGEST_CLAIM},
  commit = {2, 7 + MOST_APART, 64 * MIB},
  displace = {1 + MOST_DISPLACED, 2 * MOST_DISPLACED, MIB},
  hold = {MOST_HELD, 1, MIB},
  join = {2, 2, MIB},
  known = {2, 1, MIB},
  own = {1, 6, 5 * MIB},
  prepared = {1, 3 + 32, LONGEST_JSON},
  purge = {8, 3 + MOST_INDEXES, MIB},
  refuse = {2, 4, MIB},
  release = {1, 3, MIB},
  remove = {4, 1, MIB},
  repair = {MOST_REPAIRED, 0, MIB},
  report = {0, 3 + 64, 17 * MIB},
  retire = {3, 3, MIB},
  share = {1, 3, 5 * MIB},
}

-- What the present call may still copy of streams that it recreates, and whether it has written to the server's log.
local MOST_COPIED, LARGEST_COPY = 40000, 16 * MIB -- words, and their bytes
local room, logged

local function begin_call()
  room, logged = {words = MOST_COPIED, bytes = LARGEST_COPY}, false
end

-- The error for a call that is out of bounds.
local function refused(name, count, unit, bound)
  return redis.error_reply(string.format('ERR %s: %.0f %s are more than %.0f', name, count, unit, bound))
end

-- The error if a call is out of bounds; nothing if it may be executed.
local function too_much(name, keys, words)
  local most_keys, most_words, most_bytes = unpack(most[name])
  if #keys > most_keys then return refused(name, #keys, 'keys', most_keys) end
  if #words > most_words then return refused(name, #words, 'arguments', most_words) end
  local bytes = 0
  for n = 1, #keys do bytes = bytes + #keys[n] end
  for n = 1, #words do bytes = bytes + #words[n] end
  if bytes > most_bytes then return refused(name, bytes, 'bytes', most_bytes) end
end
