-- Admission: limits, budgets and slot together, or nothing.

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

redis.register_function('cl_admit', admit)
