-- Prepared changes: steps with places for values, which are read once and applied to many runs, as a prepared statement of
-- SQL is. A template is JSON: {"expect": [[field, value], …], "reply": [field, …], "steps": [[word, …], …]}. A word is a
-- text, the number of a value, or a list of texts and numbers to join. Values 1 and 2 are the time, and the time of the
-- run's acceptance; the caller passes the others. A value is a word, or part of one, whatever it contains: it can't become
-- a step, and a key begins with the text of its installation.

local MOST_TEMPLATES, LONGEST_TEMPLATE = 256, 65536 -- kept; bytes
local MOST_VALUES, MOST_FIELDS_READ = 2 + 32, 64 -- of a template
local MOST_PARTS, MOST_KEPT = 1000, 2 * MIB -- words and their parts, of a template; bytes of all templates
local templates, kept, kept_bytes = {}, 0, 0 -- by digest; what is lost with a restart is sent again

local function is_value(number)
  return type(number) == 'number' and number >= 1 and number <= MOST_VALUES and number % 1 == 0
end

local function is_word(word)
  if type(word) ~= 'table' then return type(word) == 'string' or is_value(word) end
  for _, part in ipairs(word) do
    if type(part) ~= 'string' and not is_value(part) then return false end
  end
  return #word > 0
end

local function are_texts(listed)
  if type(listed) ~= 'table' or #listed > MOST_FIELDS_READ then return false end
  for _, text_of in ipairs(listed) do
    if type(text_of) ~= 'string' then return false end
  end
  return true
end

-- The error of a template's step; nothing if it may be applied. Doorbells aren't prepared.
local function problem_of_step(number, words, home)
  local is_step = type(words) == 'table' and #words > 0 and type(words[1]) == 'string'
  local from, to
  if is_step and words[1] ~= 'LPUSH' and words[1] ~= 'RPUSH' then from, to = range_of_keys(words) end
  if not from then return redis.error_reply('ERR step ' .. number .. ' is no step') end
  for _, word in ipairs(words) do
    if not is_word(word) then return redis.error_reply('ERR step ' .. number .. ' has a word that is none') end
  end
  for n = from, to do
    local start = type(words[n]) == 'table' and words[n][1] or words[n]
    if type(start) ~= 'string' or string.sub(start, 1, #home) ~= home then
      return redis.error_reply('ERR step ' .. number .. ' leads out of this installation')
    end
  end
end

-- Read a template; returns nil and the error if it isn't one.
local function read_template(document, home)
  if #document > LONGEST_TEMPLATE then
    return nil, refused('prepared', #document, 'bytes of a template', LONGEST_TEMPLATE)
  end
  local read = cjson.decode(document)
  local template = {home = home, fields = {'created_at'}, values = {}, steps = type(read) == 'table' and read.steps}
  local is_one = type(template.steps) == 'table' and type(read.expect) == 'table' and are_texts(read.reply)
  for _, pair in ipairs(is_one and read.expect or {}) do
    is_one = is_one and are_texts(pair) and #pair == 2
    if is_one then template.fields[#template.fields + 1], template.values[#template.values + 1] = pair[1], pair[2] end
  end
  if not is_one or #template.fields > MOST_FIELDS_READ then return nil, redis.error_reply('ERR prepared: no template') end
  for _, field in ipairs(read.reply) do template.fields[#template.fields + 1] = field end
  local parts = 0
  for number, words in ipairs(template.steps) do
    local problem = problem_of_step(number, words, home)
    if problem then return nil, problem end
    for _, word in ipairs(words) do parts = parts + (type(word) == 'table' and #word or 1) end
    if parts > MOST_PARTS then return nil, refused('prepared', parts, 'parts of a template', MOST_PARTS) end
    if words[1] == 'SPEND' then template.use = number end
  end
  return template
end

-- The template of a digest for an installation. Returns nil if the caller must send it; nil and an error if it isn't one.
local function find_template(digest, document, home)
  local template = templates[digest]
  if template and template.home == home then return template end
  if document == '' then return nil end
  if redis.sha1hex(document) ~= digest then return nil, redis.error_reply('ERR prepared: the digest is another one') end
  local read, problem = read_template(document, home)
  if problem then return nil, problem end
  if kept >= MOST_TEMPLATES or kept_bytes + #document > MOST_KEPT then templates, kept, kept_bytes = {}, 0, 0 end
  if not templates[digest] then kept, kept_bytes = kept + 1, kept_bytes + #document end
  templates[digest] = read
  return read
end

-- The bytes of all words of a template with the values in their places.
local function filled_size(template, values)
  local size = 0
  local function add(part)
    if type(part) == 'number' then part = values[part] end
    size = size + (type(part) == 'string' and #part or 0)
  end
  for _, words in ipairs(template.steps) do
    for _, word in ipairs(words) do
      if type(word) == 'table' then for _, part in ipairs(word) do add(part) end else add(word) end
    end
  end
  return size
end

-- The words of a step with the values in their places; nil if one wasn't passed.
local function filled(words, values)
  local full = {}
  for n, word in ipairs(words) do
    local kind = type(word)
    if kind == 'number' then
      word = values[word]
    elseif kind == 'table' then
      local parts = {}
      for m, part in ipairs(word) do
        parts[m] = type(part) == 'number' and values[part] or part
        if type(parts[m]) ~= 'string' then return nil end
      end
      word = table.concat(parts)
    end
    if not word then return nil end
    full[n] = word
  end
  return full
end

-- The steps of a template with the values in their places; nil if one wasn't passed.
local function fill(template, values)
  local steps = {}
  for number, words in ipairs(template.steps) do
    steps[number] = filled(words, values)
    if not steps[number] then return nil end
  end
  return steps
end
