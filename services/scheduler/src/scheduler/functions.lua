#!lua name=crosslogic
-- Leases: a live request's slot on a node, and its write-ahead record. The contract is `common.leases`.
--
-- KEYS[1] is `{ns}:leases`; every other key derives from it and shares its hash tag, hence its cluster slot:
--   {ns}:leases      zset  id -> expiry (ms), or until when a reaper has claimed it
--   {ns}:lease:<id>  hash  intent, node, progress, admission
--   {ns}:node:<node> zset  id -> expiry (ms); its live members are the node's load
--   {ns}:live:<layer> zset id -> expiry (ms); its live members are the layer's concurrency
--   {ns}:rate:<layer> string  what the minute has used, see `rate_of`
--   {ns}:held:<scope> hash  id -> what a request holds, or has spent and nobody has recorded; and their sums
--   {ns}:spent:<scope> hash  what billing has recorded, and the version of that
--
-- A lease is live while its expiry is later than now, so that a slot is free again on time even when nobody reaps.
-- One that a reaper has claimed is in no node's set.

local function root_of(key)
  return string.sub(key, 1, -7)
end

local function lease_key(root, id)
  return root .. 'lease:' .. id
end

local function node_key(root, node)
  return root .. 'node:' .. node
end

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Lua would write 1e+15 where Redis wants an integer
local function text(number)
  return string.format('%.0f', number)
end

local function live(root, node, now)
  return redis.call('ZCOUNT', node_key(root, node), '(' .. text(now), '+inf')
end

local function concurrency_key(root, layer)
  return root .. 'live:' .. layer
end

local function admission_of(packed)
  return packed and cmsgpack.unpack(packed)
end

local function hold(root, id, node, expiry, admission)
  redis.call('ZADD', root .. 'leases', text(expiry), id)
  redis.call('ZADD', node_key(root, node), text(expiry), id)
  for _, layer in ipairs(admission and admission.layers or {}) do
    if layer.concurrency > 0 then
      redis.call('ZADD', concurrency_key(root, layer.key), text(expiry), id)
    end
  end
end

-- A minute's allowance is a bucket that drains evenly. Its contents are counted in sixty-thousandths of a request or of
-- a token, of which a limit of n a minute drains n a millisecond: all numbers are integers below 2^53. `reserved` are
-- the whole tokens that running requests may still use; they do not drain, so that what they turn out to be fits.
local MINUTE = 60000
local MOST = 9e15
local DAY = 86400000

local function rate_of(root, layer, now)
  local value = redis.call('GET', root .. 'rate:' .. layer.key)
  local requests, tokens, reserved, at = string.match(value or '', '^(%d+) (%d+) (%d+) (%d+)$')
  if not at then
    return { requests = 0, tokens = 0, reserved = 0, at = now }
  end
  at = tonumber(at)
  local elapsed = math.max(0, now - at)
  return {
    requests = layer.requests > 0 and math.max(0, tonumber(requests) - elapsed * layer.requests) or 0,
    tokens = layer.tokens > 0 and math.max(0, tonumber(tokens) - elapsed * layer.tokens) or 0,
    reserved = tonumber(reserved),
    at = math.max(at, now),
  }
end

-- How many milliseconds `amount` takes to drain
local function draining(amount, limit)
  return limit > 0 and amount > 0 and math.ceil(amount / limit) or 0
end

local function keep_rate(root, layer, rate)
  local key = root .. 'rate:' .. layer.key
  if rate.requests == 0 and rate.tokens == 0 and rate.reserved == 0 then
    redis.call('DEL', key)
    return
  end
  local value = table.concat({ text(rate.requests), text(rate.tokens), text(rate.reserved), text(rate.at) }, ' ')
  if rate.reserved > 0 then
    redis.call('SET', key, value)
  else
    local empty = math.max(draining(rate.requests, layer.requests), draining(rate.tokens, layer.tokens))
    redis.call('SET', key, value, 'PX', text(empty + 1))
  end
end

-- A layer that allows fewer tokens than one request may use lets it pass when nothing else is there
local function reservation(layer, tokens)
  return layer.tokens > 0 and math.min(tokens, layer.tokens) or 0
end

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

-- What the request took is given back; what it used instead stays. `tokens` nil: as its progress tells; `cost` nil: as
-- much as it held.
local function release(root, id, tokens, cost)
  local lease = redis.call('HMGET', lease_key(root, id), 'node', 'progress', 'admission')
  if lease[1] then
    redis.call('ZREM', node_key(root, lease[1]), id)
  end
  local admission = admission_of(lease[3])
  if admission then
    if not tokens then
      local read, progress = pcall(cjson.decode, lease[2] or '')
      tokens = read and type(progress) == 'table' and (tonumber(progress[1]) or 0) + (tonumber(progress[3]) or 0) or 0
    end
    local now = milliseconds()
    for _, layer in ipairs(admission.layers) do
      if layer.concurrency > 0 then
        redis.call('ZREM', concurrency_key(root, layer.key), id)
      end
      if layer.tokens > 0 then
        local rate = rate_of(root, layer, now)
        rate.reserved = math.max(0, rate.reserved - reservation(layer, admission.tokens))
        rate.tokens = math.min(rate.tokens + tokens * MINUTE, MOST)
        keep_rate(root, layer, rate)
      end
    end
    if admission.scope then
      spend(root, admission.scope, id, cost)
    end
  end
  redis.call('DEL', lease_key(root, id))
  return redis.call('ZREM', root .. 'leases', id)
end

-- The node with the fewest requests for its weight; equals are told apart by the caller's random number, because
-- Lua's own generator starts from the same seed in every call.
local function pick(root, args, first, now, random)
  local best, equals = nil, {}
  for at = first, #args, 3 do
    local node, capacity, weight = args[at], tonumber(args[at + 1]), tonumber(args[at + 2])
    local count = live(root, node, now)
    if capacity == 0 or count < capacity then
      local score = (count + 1) / weight
      if best == nil or score < best then
        best, equals = score, { { node, count } }
      elseif score == best then
        equals[#equals + 1] = { node, count }
      end
    end
  end
  return equals[math.floor(random * #equals) + 1]
end

-- Takes or moves the lease's slot: the node and its live requests, or nothing. `admission` is what a new lease took
-- beside the slot; a lease that moves keeps its own.
local function place(root, id, ttl, intent, random, args, first, now, admission)
  local lease = lease_key(root, id)
  local held, packed = unpack(redis.call('HMGET', lease, 'node', 'admission'))
  admission = admission or admission_of(packed)
  if held then
    for at = first, #args, 3 do
      if args[at] == held then
        local expiry = redis.call('ZSCORE', node_key(root, held), id)
        if expiry and tonumber(expiry) > now then
          hold(root, id, held, now + ttl, admission)
          redis.call('HSET', lease, 'intent', intent)
          return held, live(root, held, now)
        end
      end
    end
  end
  local chosen = pick(root, args, first, now, random)
  if not chosen then
    return nil
  end
  if held and held ~= chosen[1] then
    redis.call('ZREM', node_key(root, held), id)
  end
  hold(root, id, chosen[1], now + ttl, admission)
  redis.call('HSET', lease, 'intent', intent, 'node', chosen[1])
  return chosen[1], chosen[2] + 1
end

-- id, ttl, intent, random, (node, capacity, weight)...
local function take(keys, args)
  if #args < 4 or (#args - 4) % 3 ~= 0 then
    return redis.error_reply('ERR cl_take wants id, ttl, intent, random, then node, capacity and weight of each')
  end
  local root = root_of(keys[1])
  local node, count =
    place(root, args[1], tonumber(args[2]), args[3], tonumber(args[4]), args, 5, milliseconds(), nil)
  return node and { node, count } or {}
end

-- The layers of an admission as they stand, and the refusal that lasts longest, if any: { kind, layer, milliseconds }
local function weigh(root, layers, tokens, now)
  local rates, worst = {}, nil
  local function refuse(kind, at, wait)
    if not worst or wait > worst[3] then
      worst = { kind, at, wait }
    end
  end
  for at, layer in ipairs(layers) do
    local rate = rate_of(root, layer, now)
    rates[at] = rate
    if layer.concurrency > 0 then
      local count = redis.call('ZCOUNT', concurrency_key(root, layer.key), '(' .. text(now), '+inf')
      if count >= layer.concurrency then
        refuse('concurrency', at, 1000)
      end
    end
    local over = rate.requests + MINUTE - layer.requests * MINUTE
    if layer.requests > 0 and over > 0 then
      refuse('requests', at, draining(over, layer.requests))
    end
    over = rate.tokens + (rate.reserved + reservation(layer, tokens) - layer.tokens) * MINUTE
    if layer.tokens > 0 and over > 0 then
      refuse('tokens', at, draining(over, layer.tokens))
    end
  end
  return rates, worst
end

-- For the headers: limit, remaining and milliseconds until all is there again, of the tightest layer of each kind
local function standing(layers, rates)
  local requests, tokens = { -1, 0, 0 }, { -1, 0, 0 }
  for at, layer in ipairs(layers) do
    local rate = rates[at]
    if layer.requests > 0 then
      local remaining = math.max(0, math.floor(layer.requests - rate.requests / MINUTE))
      if requests[1] < 0 or remaining < requests[2] then
        requests = { layer.requests, remaining, draining(rate.requests, layer.requests) }
      end
    end
    if layer.tokens > 0 then
      local used = rate.tokens + rate.reserved * MINUTE
      local remaining = math.max(0, math.floor(layer.tokens - used / MINUTE))
      if tokens[1] < 0 or remaining < tokens[2] then
        tokens = { layer.tokens, remaining, draining(used, layer.tokens) }
      end
    end
  end
  return { requests[1], requests[2], requests[3], tokens[1], tokens[2], tokens[3] }
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

-- id, ttl, intent, random, tokens,
-- layers, (layer, requests, tokens, concurrency)...,
-- scope, key, hold, version, budgets, (name, spent, limit)...,
-- (node, capacity, weight)...
local function admit(keys, args)
  local root, now = root_of(keys[1]), milliseconds()
  local id, ttl, tokens = args[1], tonumber(args[2]), tonumber(args[5])
  local at, layers, budgets = 7, {}, {}
  for number = 1, tonumber(args[6]) do
    layers[number] = {
      key = args[at],
      requests = tonumber(args[at + 1]),
      tokens = tonumber(args[at + 2]),
      concurrency = tonumber(args[at + 3]),
    }
    at = at + 4
  end
  local scope, api_key, amount, version = args[at], args[at + 1], tonumber(args[at + 2]), args[at + 3]
  local count = tonumber(args[at + 4])
  at = at + 5
  for number = 1, count do
    budgets[number] = { name = args[at], spent = tonumber(args[at + 1]), limit = tonumber(args[at + 2]) }
    at = at + 3
  end
  if (#args - at + 1) % 3 ~= 0 then
    return redis.error_reply('ERR cl_admit wants node, capacity and weight of each at the end')
  end
  if redis.call('EXISTS', lease_key(root, id)) == 1 then
    local node, others = place(root, id, ttl, args[3], tonumber(args[4]), args, at, now, nil)
    return node and { 'ok', node, others, -1, 0, 0, -1, 0, 0 } or { 'full', '', 0, -1, 0, 0, -1, 0, 0 }
  end

  local rates, refused = weigh(root, layers, tokens, now)
  if refused then
    return { refused[1], text(refused[2]), refused[3], unpack(standing(layers, rates)) }
  end
  if count > 0 then
    local over, used, waits = over_budget(root, scope, api_key, amount, budgets)
    if over then
      return { 'budget', text(over), waits and 1000 or 0, unpack(standing(layers, rates)) }
    end
  end
  local admission = { layers = layers, tokens = tokens, scope = count > 0 and scope or nil }
  local node, others = place(root, id, ttl, args[3], tonumber(args[4]), args, at, now, admission)
  if not node then
    return { 'full', '', 0, unpack(standing(layers, rates)) }
  end
  for number, layer in ipairs(layers) do
    local rate = rates[number]
    if layer.requests > 0 then
      rate.requests = rate.requests + MINUTE
    end
    rate.reserved = rate.reserved + reservation(layer, tokens)
    if layer.requests > 0 or layer.tokens > 0 then
      keep_rate(root, layer, rate)
    end
  end
  if count > 0 then
    account(root, scope, id, 'held', amount, api_key)
    if redis.call('EXISTS', spent_key(root, scope)) == 0 then
      local fields = {}
      for _, budget in ipairs(budgets) do
        fields[#fields + 1] = budget.name
        fields[#fields + 1] = text(budget.spent)
      end
      redis.call('HSET', spent_key(root, scope), '@version', version, unpack(fields))
      redis.call('PEXPIRE', spent_key(root, scope), text(DAY))
    end
  end
  if #layers > 0 or count > 0 then
    redis.call('HSET', lease_key(root, id), 'admission', cmsgpack.pack(admission))
  end
  return { 'ok', node, others, unpack(standing(layers, rates)) }
end

-- ttl, (id, progress)...
local function renew(keys, args)
  local root, expiry, unknown = root_of(keys[1]), milliseconds() + tonumber(args[1]), {}
  for at = 2, #args, 2 do
    local id, lease = args[at], lease_key(root, args[at])
    local node, packed = unpack(redis.call('HMGET', lease, 'node', 'admission'))
    if node then
      hold(root, id, node, expiry, admission_of(packed))
      redis.call('HSET', lease, 'progress', args[at + 1])
    else
      unknown[#unknown + 1] = id
    end
  end
  return unknown
end

-- id, ttl, intent, node, progress
local function assert_lease(keys, args)
  local root, id, node = root_of(keys[1]), args[1], args[4]
  local lease = lease_key(root, id)
  local held, packed = unpack(redis.call('HMGET', lease, 'node', 'admission'))
  if held and held ~= node then
    redis.call('ZREM', node_key(root, held), id)
  end
  hold(root, id, node, milliseconds() + tonumber(args[2]), admission_of(packed))
  redis.call('HSET', lease, 'intent', args[3], 'node', node, 'progress', args[5])
  return 1
end

-- id...: ended without having used anything
local function give_back(keys, args)
  local root, count = root_of(keys[1]), 0
  for _, id in ipairs(args) do
    count = count + release(root, id, 0, 0)
  end
  return count
end

-- (id, tokens, cost)...: ended, and what it has used
local function finish(keys, args)
  local root, count = root_of(keys[1]), 0
  for at = 1, #args, 3 do
    count = count + release(root, args[at], tonumber(args[at + 1]), tonumber(args[at + 2]))
  end
  return count
end

-- limit, claim
local function reap(keys, args)
  local root, now, found = root_of(keys[1]), milliseconds(), {}
  local claimed = text(now + tonumber(args[2]))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', keys[1], '-inf', text(now), 'LIMIT', 0, tonumber(args[1]))) do
    local lease = redis.call('HMGET', lease_key(root, id), 'intent', 'progress', 'node')
    if lease[3] then
      redis.call('ZREM', node_key(root, lease[3]), id)
      redis.call('ZADD', keys[1], claimed, id)
      found[#found + 1] = { id, lease[1] or '', lease[2] or '', lease[3] }
    else
      redis.call('ZREM', keys[1], id)
    end
  end
  return found
end

-- id...: what a reaper has settled, unless its gateway turned out to be alive and renewed it meanwhile
local function settle(keys, args)
  local root, count = root_of(keys[1]), 0
  for _, id in ipairs(args) do
    local node = redis.call('HGET', lease_key(root, id), 'node')
    if not (node and redis.call('ZSCORE', node_key(root, node), id)) then
      count = count + release(root, id, nil, nil)
    end
  end
  return count
end

-- node...
local function load(keys, args)
  local root, now, counts = root_of(keys[1]), milliseconds(), {}
  for at, node in ipairs(args) do
    counts[at] = live(root, node, now)
  end
  return counts
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

redis.register_function('cl_take', take)
redis.register_function('cl_admit', admit)
redis.register_function('cl_renew', renew)
redis.register_function('cl_assert', assert_lease)
-- these free memory, or write no more than they free: they must work on a server that is full
redis.register_function { function_name = 'cl_return', callback = give_back, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_end', callback = finish, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_record', callback = record, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_reap', callback = reap, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_settle', callback = settle, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_load', callback = load, flags = { 'no-writes' } }
redis.register_function { function_name = 'cl_unrecorded', callback = unrecorded, flags = { 'no-writes' } }
redis.register_function { function_name = 'cl_held', callback = held, flags = { 'no-writes' } }
