-- Places: a node for a lease.

-- How to choose, in one argument: random[ tokens scale preferred bound bias...], numbers apart by a space.
local function chosen_by(argument)
  local numbers = {}
  for number in string.gmatch(argument, '%S+') do
    numbers[#numbers + 1] = tonumber(number)
  end
  return {
    random = numbers[1],
    tokens = numbers[2] or 0,
    scale = numbers[3] or 0,
    preferred = numbers[4] or 0,
    bound = numbers[5] or 0,
    bias = function(number)
      return numbers[5 + number] or 0
    end,
  }
end

-- The tokens that each of the nodes on offer is still to work on
local function pending_of(root, args, first)
  local names = {}
  for at = first, #args, 3 do
    names[#names + 1] = args[at]
  end
  return #names > 0 and redis.call('HMGET', root .. 'pending', unpack(names)) or {}
end

-- Requests by which a preferred node may be over the bound: when little is going on, one request is many averages
local SLACK = 2

-- One of the preferred, in their order, that has room and whose load is no more than `bound` times the average; else
-- the one with the least load. Equals are told apart by the caller's random number, because Lua's own generator starts
-- from the same seed in every call. A load is in requests, for the node's weight: live ones, tokens, and the bias.
-- `gateway.picking` does the same on values.
local function pick(root, args, first, now, how)
  local pending = how.scale > 0 and pending_of(root, args, first)
  local later, number, sum, open = '(' .. text(now), 0, 0, {}
  for at = first, #args, 3 do
    number = number + 1
    local capacity, weight = tonumber(args[at + 1]), tonumber(args[at + 2])
    local count = redis.call('ZCOUNT', node_key(root, args[at]), later, '+inf')
    local work = pending and (tonumber(pending[number]) or 0) + how.tokens
    local load = (count + 1 + (work and work / how.scale or 0) + how.bias(number)) / weight
    sum = sum + load
    if capacity == 0 or count < capacity then
      open[#open + 1] = { args[at], count, load, number }
    end
  end
  local most = how.bound > 0 and how.bound * sum / number + SLACK or math.huge
  local best, equals = nil, {}
  for _, node in ipairs(open) do
    if node[4] <= how.preferred and node[3] <= most then
      return node
    end
    if best == nil or node[3] < best then
      best, equals = node[3], { node }
    elseif node[3] == best then
      equals[#equals + 1] = node
    end
  end
  return equals[math.floor(how.random * #equals) + 1]
end

-- Takes or moves the lease's slot: the node and its live requests, or nothing. `admission` is what a new lease took
-- beside the slot; a lease that moves keeps its own, and its tokens.
local function place(root, id, ttl, intent, argument, args, first, now, admission)
  local lease = lease_key(root, id)
  local held, packed, tokens = unpack(redis.call('HMGET', lease, 'node', 'admission', 'tokens'))
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
  local how = chosen_by(argument)
  local chosen = pick(root, args, first, now, how)
  if not chosen then
    return nil
  end
  tokens = tonumber(tokens) or how.tokens
  if held and held ~= chosen[1] then
    leave(root, id, held, tokens)
  end
  hold(root, id, chosen[1], now + ttl, admission, tokens)
  redis.call('HSET', lease, 'intent', intent, 'node', chosen[1], 'tokens', text(tokens))
  return chosen[1], chosen[2] + 1
end

-- id, ttl, intent, how, line, (node, capacity, weight)...
local function take(keys, args)
  if #args < 5 or (#args - 5) % 3 ~= 0 then
    return redis.error_reply('ERR cl_take wants id, ttl, intent, how, line, then node, capacity and weight of each')
  end
  local root = root_of(keys[1])
  if args[5] ~= '' and waits(root, args[5]) then
    return {}
  end
  local node, count = place(root, args[1], tonumber(args[2]), args[3], args[4], args, 6, milliseconds(), nil)
  return node and { node, count } or {}
end

redis.register_function('cl_take', take)
