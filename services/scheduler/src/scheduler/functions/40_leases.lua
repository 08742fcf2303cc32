-- Leases: held, renewed, asserted anew and given back.

-- What becomes of a slot that was given back, see Queue
local freed

-- A node's pending tokens change with the members of its set, and never otherwise. `tokens` nil: as the lease tells.
local function pend(root, id, node, sign, tokens)
  tokens = tokens or tonumber(redis.call('HGET', lease_key(root, id), 'tokens')) or 0
  add(root .. 'pending', node, sign * tokens)
end

local function leave(root, id, node, tokens)
  if redis.call('ZREM', node_key(root, node), id) == 1 then
    pend(root, id, node, -1, tokens)
  end
end

local function hold(root, id, node, expiry, admission, tokens)
  redis.call('ZADD', root .. 'leases', text(expiry), id)
  if redis.call('ZADD', node_key(root, node), text(expiry), id) == 1 then
    pend(root, id, node, 1, tokens)
  end
  for _, layer in ipairs(admission and admission.layers or {}) do
    if layer.concurrency > 0 then
      redis.call('ZADD', concurrency_key(root, layer.key), text(expiry), id)
    end
  end
end

-- What the request took is given back; what it used instead stays. `tokens` nil: as its progress tells; `cost` nil: as
-- much as it held.
local function release(root, id, tokens, cost)
  local lease = redis.call('HMGET', lease_key(root, id), 'node', 'progress', 'admission', 'tokens')
  if lease[1] then
    leave(root, id, lease[1], tonumber(lease[4]) or 0)
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
  local known = redis.call('ZREM', root .. 'leases', id)
  if lease[1] then
    freed(root, lease[1])
  end
  return known
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

-- node...
local function load(keys, args)
  local root, now, counts = root_of(keys[1]), milliseconds(), {}
  for at, node in ipairs(args) do
    counts[at] = live(root, node, now)
  end
  return counts
end

-- node...
local function pending(keys, args)
  local sums = #args > 0 and redis.call('HMGET', root_of(keys[1]) .. 'pending', unpack(args)) or {}
  for at = 1, #args do
    sums[at] = tonumber(sums[at]) or 0
  end
  return sums
end

redis.register_function('cl_renew', renew)
-- what frees memory must work on a server that is full
redis.register_function { function_name = 'cl_return', callback = give_back, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_end', callback = finish, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_load', callback = load, flags = { 'no-writes' } }
redis.register_function { function_name = 'cl_pending', callback = pending, flags = { 'no-writes' } }
