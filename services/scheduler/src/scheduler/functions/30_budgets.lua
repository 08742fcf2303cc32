-- Budgets: what running requests hold, what ended ones have spent, and what billing has recorded of it.
--
-- Money is whole micro-dollars, below 2^53 of which lie nine billion dollars.
--   #held, #spent     what running requests hold, and what ended ones have spent that billing has not recorded
--   #key:<key>        both, of one API key
--   <id>              'held' or 'spent', amount and key
local function held_key(root, scope)
  return root .. 'held:' .. scope
end

local function spent_key(root, scope)
  return root .. 'spent:' .. scope
end

local function add(key, field, amount)
  if amount ~= 0 and redis.call('HINCRBY', key, field, text(amount)) == 0 then
    redis.call('HDEL', key, field)
  end
end

-- Puts `amount` in the place of what the request has there; `kind` nil takes it away
local function account(root, scope, id, kind, amount, api_key)
  local key = held_key(root, scope)
  local old, before, of = string.match(redis.call('HGET', key, id) or '', '^(%a+) (%d+) (.*)$')
  api_key = api_key or of
  if old then
    add(key, '#' .. old, -tonumber(before))
    add(key, '#key:' .. of, -tonumber(before))
    redis.call('HDEL', key, id)
  end
  if kind and amount > 0 then
    add(key, '#' .. kind, amount)
    add(key, '#key:' .. api_key, amount)
    redis.call('HSET', key, id, kind .. ' ' .. text(amount) .. ' ' .. api_key)
  end
end

-- Takes `amount` as spent, but only in the place of a hold: without one, billing has recorded the request already
local function spend(root, scope, id, amount)
  local held, before = string.match(redis.call('HGET', held_key(root, scope), id) or '', '^(%a+) (%d+)')
  if held == 'held' then
    account(root, scope, id, 'spent', amount or tonumber(before))
  end
end

-- The number of the budget that `amount` does not fit into; what is recorded is Redis's, or else the caller's
local function over_budget(root, scope, api_key, amount, budgets)
  local key = held_key(root, scope)
  local sums = redis.call('HMGET', key, '#held', '#spent', '#key:' .. api_key)
  local of_scope = (tonumber(sums[1]) or 0) + (tonumber(sums[2]) or 0)
  local of_key = tonumber(sums[3]) or 0
  local known = redis.call('HGET', spent_key(root, scope), '@version')
  for at, budget in ipairs(budgets) do
    local spent = budget.spent
    if known then
      spent = tonumber(redis.call('HGET', spent_key(root, scope), budget.name)) or 0
    end
    local pending = string.sub(budget.name, 1, 4) == 'key:' and of_key or of_scope
    if spent + pending + amount > budget.limit then
      return at, spent + pending, pending > 0 and spent + amount <= budget.limit
    end
  end
  return nil
end

-- scope: the requests whose recording billing has yet to tell, running ones too, and the version that it told last
local function unrecorded(keys, args)
  local root, ids = root_of(keys[1]), {}
  for _, field in ipairs(redis.call('HKEYS', held_key(root, args[1]))) do
    if string.sub(field, 1, 1) ~= '#' then
      ids[#ids + 1] = field
    end
  end
  return { redis.call('HGET', spent_key(root, args[1]), '@version') or '0', ids }
end

-- scope, version, amounts, (name, spent)..., id...: billing's sums, and requests that are among them. In one step, so
-- that each request counts once at every moment: in its hold, in what it has spent, or in billing's sums.
local function record(keys, args)
  local root, scope, version = root_of(keys[1]), args[1], tonumber(args[2])
  local key, first = spent_key(root, args[1]), 4 + 2 * tonumber(args[3])
  for at = first, #args do
    account(root, scope, args[at], nil, 0)
  end
  local known = redis.call('HGET', key, '@version')
  if known and tonumber(known) > version then
    return 0
  end
  redis.call('DEL', key)
  redis.call('HSET', key, '@version', args[2])
  for at = 4, first - 1, 2 do
    redis.call('HSET', key, args[at], args[at + 1])
  end
  redis.call('PEXPIRE', key, text(DAY))
  return 1
end

-- scope...: (held, spent and not recorded) of each
local function held(keys, args)
  local root, found = root_of(keys[1]), {}
  for at, scope in ipairs(args) do
    local sums = redis.call('HMGET', held_key(root, scope), '#held', '#spent')
    found[at] = { tonumber(sums[1]) or 0, tonumber(sums[2]) or 0 }
  end
  return found
end

-- what frees memory, or writes no more than it frees, must work on a server that is full
redis.register_function { function_name = 'cl_record', callback = record, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_unrecorded', callback = unrecorded, flags = { 'no-writes' } }
redis.register_function { function_name = 'cl_held', callback = held, flags = { 'no-writes' } }
