-- Waiting: how a request comes into the queue, is asked after, and leaves.
local AT_ONCE = 100

local function set_offer(root, line, args, first)
  local key = line_key(root, 'offer', line)
  redis.call('DEL', key)
  for at = first, #args, 3 do
    redis.call('HSET', key, args[at], args[at + 1] .. ' ' .. args[at + 2])
  end
end

-- Milliseconds until somebody new in this flow would be served, as slots have come lately; 0 is unknown. Its tenant's
-- requests come before it, and for each of them the other flows' share.
local function estimate(root, line, flow, weight, now)
  local state = line_key(root, 'line', line)
  local interval, granted = unpack(redis.call('HMGET', state, 'interval', 'granted'))
  if not interval then
    return 0
  end
  interval = math.max(tonumber(interval), granted and now - tonumber(granted) or 0)
  local own = redis.call('ZCARD', flow_key(root, line, flow))
  local total = weight
  for _, other in ipairs(redis.call('ZRANGE', line_key(root, 'flows', line), 0, -1)) do
    if other ~= flow then
      total = total + (tonumber(redis.call('HGET', state, 'weight:' .. other)) or 1)
    end
  end
  local length = redis.call('ZCARD', line_key(root, 'queue', line))
  return math.ceil(interval * math.min(length + 1, (own + 1) * total / weight))
end

-- id, ttl, intent, how, line, flow, weight, waited, patience, most, most of a flow, channel,
-- what it asks, (node, capacity, weight)...
local function wait(keys, args)
  local root, now = root_of(keys[1]), milliseconds()
  local id, ttl, intent, line, flow = args[1], tonumber(args[2]), args[3], args[5], args[6]
  local weight, patience = tonumber(args[7]), tonumber(args[9])
  local ask, at = asked(args, 13)
  if (#args - at + 1) % 3 ~= 0 then
    return redis.error_reply('ERR cl_wait wants node, capacity and weight of each at the end')
  end
  if redis.call('EXISTS', lease_key(root, id)) == 1 then
    return { 'wait', '', 0, -1, 0, 0, -1, 0, 0 }
  end
  -- first: those who leave give back what they were charged
  sweep(root, now, AT_ONCE)
  if waits(root, line) then
    set_offer(root, line, args, at)
    pump(root, line, now, AT_ONCE)
  end
  local rates, refusal = judge(root, ask, now)
  if refusal then
    return refusal
  end
  if not waits(root, line) then
    local node, others = place(root, id, ttl, intent, args[4], args, at, now, ask.admission)
    if node then
      charge(root, id, ask, rates)
      return { 'ok', node, others, unpack(standing(ask.layers, rates)) }
    end
  end
  local soon = estimate(root, line, flow, weight, now)
  local length = redis.call('ZCARD', line_key(root, 'queue', line))
  local own = redis.call('ZCARD', flow_key(root, line, flow))
  if own >= math.min(tonumber(args[11]), tonumber(args[10]) - length) then
    return { 'crowded', '', soon, unpack(standing(ask.layers, rates)) }
  end
  -- slots may come twice as fast as they did
  if soon > 2 * patience then
    return { 'late', '', soon, unpack(standing(ask.layers, rates)) }
  end
  charge(root, id, ask, rates)
  local expiry = now + ttl
  redis.call('HSET', lease_key(root, id), 'intent', intent, 'tokens', text(chosen_by(args[4]).tokens))
  for _, layer in ipairs(ask.layers) do
    if layer.concurrency > 0 then
      redis.call('ZADD', concurrency_key(root, layer.key), text(expiry), id)
    end
  end
  local waiter = {
    flow = flow,
    weight = args[7],
    cost = math.max(1, ask.tokens),
    deadline = now + patience,
    channel = args[12],
  }
  local empty = not waits(root, line)
  enqueue(root, line, id, waiter, now - tonumber(args[8]), expiry)
  if empty then
    set_offer(root, line, args, at)
  end
  return { 'wait', '', soon, unpack(standing(ask.layers, rates)) }
end

-- line, (node, capacity, weight)...: what there is now. Returns how many got a slot; when that is 100, ask again.
local function offer(keys, args)
  local root, now = root_of(keys[1]), milliseconds()
  sweep(root, now, AT_ONCE)
  if not waits(root, args[1]) then
    return 0
  end
  set_offer(root, args[1], args, 2)
  return pump(root, args[1], now, AT_ONCE)
end

-- ttl, id...: they still wait. Answers (id, node) of those who have a slot, (id, '') of those who are not known.
local function still_waiting(keys, args)
  local root, now, found = root_of(keys[1]), milliseconds(), {}
  local expiry = now + tonumber(args[1])
  for at = 2, #args do
    local id = args[at]
    local node, packed, unclaimed = unpack(redis.call('HMGET', lease_key(root, id), 'node', 'admission', 'unclaimed'))
    local admission = admission_of(packed)
    if redis.call('EXISTS', waiter_key(root, id)) == 1 then
      redis.call('ZADD', root .. 'waiting', text(expiry), id)
      for _, layer in ipairs(admission and admission.layers or {}) do
        if layer.concurrency > 0 then
          redis.call('ZADD', concurrency_key(root, layer.key), text(expiry), id)
        end
      end
    else
      if node and (tonumber(redis.call('ZSCORE', node_key(root, node), id)) or 0) > now then
        hold(root, id, node, expiry, admission)
        redis.call('HDEL', lease_key(root, id), 'unclaimed')
      else
        if unclaimed then
          abandon(root, id)
        end
        node = ''
      end
      found[#found + 1] = id
      found[#found + 1] = node
    end
  end
  return found
end

-- id...: they have left, whether they have got a slot meanwhile or not
local function leave_queue(keys, args)
  local root = root_of(keys[1])
  for _, id in ipairs(args) do
    drop(root, id)
  end
  return #args
end

-- Of each line: its name, how many wait, for how long the first has, in how many flows, and ms between two slots
local function queue(keys, args)
  local root, now, found = root_of(keys[1]), milliseconds(), {}
  for at, line in ipairs(redis.call('ZRANGE', root .. 'lines', 0, -1)) do
    local key = line_key(root, 'queue', line)
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    local interval = redis.call('HGET', line_key(root, 'line', line), 'interval')
    local flows = {}
    for _, flow in ipairs(redis.call('ZRANGE', line_key(root, 'flows', line), 0, -1)) do
      flows[#flows + 1] = flow
      flows[#flows + 1] = redis.call('ZCARD', flow_key(root, line, flow))
    end
    found[at] = {
      line,
      redis.call('ZCARD', key),
      math.max(0, now - (tonumber(first[2]) or now)),
      math.ceil(tonumber(interval) or 0),
      flows,
    }
  end
  return found
end

redis.register_function('cl_wait', wait)
redis.register_function('cl_offer', offer)
redis.register_function('cl_waiting', still_waiting)
redis.register_function { function_name = 'cl_leave', callback = leave_queue, flags = { 'allow-oom' } }
redis.register_function { function_name = 'cl_queue', callback = queue, flags = { 'no-writes' } }
