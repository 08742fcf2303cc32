-- Reaping: leases that nobody renews any more.

-- limit, claim
local function reap(keys, args)
  local root, now, found = root_of(keys[1]), milliseconds(), {}
  local claimed = text(now + tonumber(args[2]))
  sweep(root, now, tonumber(args[1]))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', keys[1], '-inf', text(now), 'LIMIT', 0, tonumber(args[1]))) do
    local lease = redis.call('HMGET', lease_key(root, id), 'intent', 'progress', 'node', 'unclaimed')
    if lease[4] then
      -- it waited, and its gateway died before it had heard of the slot
      abandon(root, id)
    elseif lease[3] then
      leave(root, id, lease[3])
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

-- what frees memory must work on a server that is full
redis.register_function { function_name = 'cl_reap', callback = reap, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_settle', callback = settle, flags = { 'allow-oom' } }
