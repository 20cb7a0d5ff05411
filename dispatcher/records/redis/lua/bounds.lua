-- What a call may ask for. Whoever may call a function may call it with anything, and the server does nothing else
-- meanwhile: so each function asks here first. Our senders send less, in portions (scripts.py).

local MIB = 1048576
local LONGEST_JSON = MIB / 2 -- bytes of one document: a list of empty lists takes a tenth of a second to be read
local MOST_RUNS, MOST_INDEXES, MOST_BLOBS, MOST_FIELDS = 100, 200, 16, 200 -- of one accept; indexes and fields of a run
local MOST_STEPS, MOST_WORDS, MOST_APART = 500, 4000, 64 -- of one change
local MOST_LINES, MOST_HELD, MOST_REPAIRED = 500, 100, 16
local LONGEST_CLAIM = MIB

-- Of each function: most keys, most arguments, most bytes of both.
local most = {
  accept = {0, 1 + 6 * MOST_RUNS, 24 * MIB},
  acquire = {1, 4, MIB},
  announce = {3, 3, 16 * MIB},
  append = {2, 3 + 5 * MOST_LINES, 8 * MIB},
  beat = {3, 2, MIB},
  claim = {0, 9 + 64, LONGEST_CLAIM},
  commit = {2, 7 + MOST_APART, 64 * MIB},
  guessed = {1, 64, LONGEST_JSON},
  hold = {MOST_HELD, 1, MIB},
  join = {2, 2, MIB},
  known = {2, 1, MIB},
  own = {1, 6, 5 * MIB},
  purge = {8, 3 + MOST_INDEXES, MIB},
  refuse = {2, 3, MIB},
  release = {1, 3, MIB},
  remove = {4, 1, MIB},
  repair = {MOST_REPAIRED, 0, MIB},
  report = {0, 3 + 64, 17 * MIB},
  retire = {3, 3, MIB},
  share = {1, 3, 5 * MIB},
}

-- The error of a function that was asked for more than its bound.
local function refused(name, count, what, bound)
  return redis.error_reply(string.format('ERR %s: %.0f %s are more than %.0f', name, count, what, bound))
end

-- Why a call isn't looked at; nothing if it may be.
local function too_much(name, keys, words)
  local most_keys, most_words, most_bytes = unpack(most[name])
  if #keys > most_keys then return refused(name, #keys, 'keys', most_keys) end
  if #words > most_words then return refused(name, #words, 'arguments', most_words) end
  local bytes = 0
  for n = 1, #keys do bytes = bytes + #keys[n] end
  for n = 1, #words do bytes = bytes + #words[n] end
  if bytes > most_bytes then return refused(name, bytes, 'bytes', most_bytes) end
end
