-- Places: a node for a lease.

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

redis.register_function('cl_take', take)
