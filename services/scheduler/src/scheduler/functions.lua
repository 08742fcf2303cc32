#!lua name=crosslogic
-- Leases: a live request's slot on a node, and its write-ahead record. The contract is `common.leases`.
--
-- KEYS[1] is `{ns}:leases`; every other key derives from it and shares its hash tag, hence its cluster slot:
--   {ns}:leases      zset  id -> expiry (ms), or until when a reaper has claimed it
--   {ns}:lease:<id>  hash  intent, node, progress
--   {ns}:node:<node> zset  id -> expiry (ms); its live members are the node's load
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

local function hold(root, id, node, expiry)
  redis.call('ZADD', root .. 'leases', text(expiry), id)
  redis.call('ZADD', node_key(root, node), text(expiry), id)
end

local function release(root, id, node)
  if node then
    redis.call('ZREM', node_key(root, node), id)
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

-- id, ttl, intent, random, (node, capacity, weight)...
local function take(keys, args)
  if #args < 4 or (#args - 4) % 3 ~= 0 then
    return redis.error_reply('ERR cl_take wants id, ttl, intent, random, then node, capacity and weight of each')
  end
  local root, now = root_of(keys[1]), milliseconds()
  local id, ttl, intent, random = args[1], tonumber(args[2]), args[3], tonumber(args[4])
  local lease = lease_key(root, id)
  local held = redis.call('HGET', lease, 'node')
  if held then
    for at = 5, #args, 3 do
      if args[at] == held then
        local expiry = redis.call('ZSCORE', node_key(root, held), id)
        if expiry and tonumber(expiry) > now then
          hold(root, id, held, now + ttl)
          redis.call('HSET', lease, 'intent', intent)
          return { held, live(root, held, now) }
        end
      end
    end
  end
  local chosen = pick(root, args, 5, now, random)
  if not chosen then
    return {}
  end
  if held and held ~= chosen[1] then
    redis.call('ZREM', node_key(root, held), id)
  end
  hold(root, id, chosen[1], now + ttl)
  redis.call('HSET', lease, 'intent', intent, 'node', chosen[1])
  return { chosen[1], chosen[2] + 1 }
end

-- ttl, (id, progress)...
local function renew(keys, args)
  local root, expiry, unknown = root_of(keys[1]), milliseconds() + tonumber(args[1]), {}
  for at = 2, #args, 2 do
    local id, lease = args[at], lease_key(root, args[at])
    local node = redis.call('HGET', lease, 'node')
    if node then
      hold(root, id, node, expiry)
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
  local held = redis.call('HGET', lease, 'node')
  if held and held ~= node then
    redis.call('ZREM', node_key(root, held), id)
  end
  hold(root, id, node, milliseconds() + tonumber(args[2]))
  redis.call('HSET', lease, 'intent', args[3], 'node', node, 'progress', args[5])
  return 1
end

-- id...
local function give_back(keys, args)
  local root, count = root_of(keys[1]), 0
  for _, id in ipairs(args) do
    count = count + release(root, id, redis.call('HGET', lease_key(root, id), 'node'))
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
      count = count + release(root, id, node)
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

redis.register_function('cl_take', take)
redis.register_function('cl_renew', renew)
redis.register_function('cl_assert', assert_lease)
-- these free memory, or write no more than they free: they must work on a server that is full
redis.register_function { function_name = 'cl_return', callback = give_back, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_reap', callback = reap, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_settle', callback = settle, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_load', callback = load, flags = { 'no-writes' } }
