-- Admission: limits, budgets and slot together, or nothing.

-- What a request asks to be let in with, from the argument `at` on, and where the nodes begin:
-- tokens, layers, (layer, requests, tokens, concurrency)..., scope, key, hold, version, budgets, (name, spent, limit)...
local function asked(args, at)
  local ask = { tokens = tonumber(args[at]), layers = {}, budgets = {} }
  local layers = tonumber(args[at + 1])
  at = at + 2
  for number = 1, layers do
    ask.layers[number] = {
      key = args[at],
      requests = tonumber(args[at + 1]),
      tokens = tonumber(args[at + 2]),
      concurrency = tonumber(args[at + 3]),
    }
    at = at + 4
  end
  ask.scope, ask.api_key, ask.amount, ask.version = args[at], args[at + 1], tonumber(args[at + 2]), args[at + 3]
  local budgets = tonumber(args[at + 4])
  at = at + 5
  for number = 1, budgets do
    ask.budgets[number] = { name = args[at], spent = tonumber(args[at + 1]), limit = tonumber(args[at + 2]) }
    at = at + 3
  end
  -- what its lease keeps, to give it back
  ask.admission = { layers = ask.layers, tokens = ask.tokens, scope = budgets > 0 and ask.scope or nil }
  return ask, at
end

-- The layers as they stand, and the refusal as `cl_admit` answers it, if there is one
local function judge(root, ask, now)
  local rates, refused = weigh(root, ask.layers, ask.tokens, now)
  if refused then
    return rates, { refused[1], text(refused[2]), refused[3], unpack(standing(ask.layers, rates)) }
  end
  if #ask.budgets > 0 then
    local over, _, waits = over_budget(root, ask.scope, ask.api_key, ask.amount, ask.budgets)
    if over then
      return rates, { 'budget', text(over), waits and 1000 or 0, unpack(standing(ask.layers, rates)) }
    end
  end
  return rates, nil
end

-- Takes all but the slot. `running`: of a request that has been let in before, it begins no second time.
local function charge(root, id, ask, rates, running)
  for number, layer in ipairs(ask.layers) do
    local rate = rates[number]
    if layer.requests > 0 and not running then
      rate.requests = rate.requests + MINUTE
    end
    rate.reserved = rate.reserved + reservation(layer, ask.tokens)
    if layer.requests > 0 or layer.tokens > 0 then
      keep_rate(root, layer, rate)
    end
  end
  if #ask.budgets > 0 then
    account(root, ask.scope, id, 'held', ask.amount, ask.api_key)
    if redis.call('EXISTS', spent_key(root, ask.scope)) == 0 then
      local fields = {}
      for _, budget in ipairs(ask.budgets) do
        fields[#fields + 1] = budget.name
        fields[#fields + 1] = text(budget.spent)
      end
      redis.call('HSET', spent_key(root, ask.scope), '@version', ask.version, unpack(fields))
      redis.call('PEXPIRE', spent_key(root, ask.scope), text(DAY))
    end
  end
  if #ask.layers > 0 or #ask.budgets > 0 then
    redis.call('HSET', lease_key(root, id), 'admission', cmsgpack.pack(ask.admission))
  end
end

-- id, ttl, intent, how, line, what it asks, (node, capacity, weight)...
local function admit(keys, args)
  local root, now = root_of(keys[1]), milliseconds()
  local id, ttl, how = args[1], tonumber(args[2]), args[4]
  local ask, at = asked(args, 6)
  if (#args - at + 1) % 3 ~= 0 then
    return redis.error_reply('ERR cl_admit wants node, capacity and weight of each at the end')
  end
  if redis.call('EXISTS', lease_key(root, id)) == 1 then
    local node, others = place(root, id, ttl, args[3], how, args, at, now, nil)
    return node and { 'ok', node, others, -1, 0, 0, -1, 0, 0 } or { 'full', '', 0, -1, 0, 0, -1, 0, 0 }
  end
  local rates, refusal = judge(root, ask, now)
  if refusal then
    return refusal
  end
  local node, others
  if not waits(root, args[5]) then
    node, others = place(root, id, ttl, args[3], how, args, at, now, ask.admission)
  end
  if not node then
    return { 'full', '', 0, unpack(standing(ask.layers, rates)) }
  end
  charge(root, id, ask, rates)
  return { 'ok', node, others, unpack(standing(ask.layers, rates)) }
end

-- id, ttl, intent, node, progress[, tokens[, what it asks]]: a lease that is known keeps its own
local function assert_lease(keys, args)
  local root, now, id, node = root_of(keys[1]), milliseconds(), args[1], args[4]
  local lease = lease_key(root, id)
  local held, packed = unpack(redis.call('HMGET', lease, 'node', 'admission'))
  local admission = admission_of(packed)
  if held and held ~= node then
    leave(root, id, held)
  end
  if not held then
    redis.call('HSET', lease, 'tokens', args[6] or '0')
  end
  if not held and not admission and args[7] then
    local ask, rates = asked(args, 7), {}
    for number, layer in ipairs(ask.layers) do
      rates[number] = rate_of(root, layer, now)
    end
    charge(root, id, ask, rates, true)
    admission = ask.admission
  end
  hold(root, id, node, now + tonumber(args[2]), admission)
  redis.call('HSET', lease, 'intent', args[3], 'node', node, 'progress', args[5])
  return 1
end

redis.register_function('cl_admit', admit)
redis.register_function('cl_assert', assert_lease)
