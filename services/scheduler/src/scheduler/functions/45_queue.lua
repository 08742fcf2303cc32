-- Queue: requests that wait for a slot, and whose turn it is.
--
-- Who waits for the same nodes is in one line. In it, each tenant's requests of one class are a flow, first come first
-- served; the flows take turns by weighted deficit round robin. Each round gives a flow as many tokens as its weight
-- is, and a flow's first request is due in the round in which the flow has saved up what it costs. Rounds in which
-- nothing is due pass at once, so they are counted as numbers instead of being walked through: a flow's deficit is
-- (round - start) * weight. A flow that empties loses what it has saved.
--
--   {ns}:lines                zset  line that is not empty -> its place in the turn of lines
--   {ns}:queue:<line>         zset  id -> arrival (ms)
--   {ns}:flows:<line>         zset  flow -> round in which its first request is due
--   {ns}:flow:<flow>:<line>   zset  id -> arrival (ms)
--   {ns}:line:<line>          hash  round; start and weight of each flow; when and how often slots came
--   {ns}:offer:<line>         hash  node -> capacity and weight, as a gateway last told
--   {ns}:waiting              zset  id -> expiry (ms)
--   {ns}:waiter:<id>          hash  line, flow, weight, cost, deadline, channel
--   {ns}:granted:<channel>    list  ids that have got a slot, for whoever reads the channel
-- What a waiting request has been charged is in its lease, which has no node yet.
local QUIET = 60000

local function line_key(root, kind, line)
  return root .. kind .. ':' .. line
end

local function flow_key(root, line, flow)
  return root .. 'flow:' .. flow .. ':' .. line
end

local function waiter_key(root, id)
  return root .. 'waiter:' .. id
end

local function exact(number)
  return string.format('%.17g', number)
end

local function waits(root, line)
  return redis.call('EXISTS', line_key(root, 'queue', line)) == 1
end

-- A flow's first request, which may have changed, decides when the flow is due
local function schedule(root, line, flow)
  local first = redis.call('ZRANGE', flow_key(root, line, flow), 0, 0)[1]
  if not first then
    redis.call('ZREM', line_key(root, 'flows', line), flow)
    redis.call('HDEL', line_key(root, 'line', line), 'start:' .. flow, 'weight:' .. flow)
    return
  end
  local waiter = redis.call('HMGET', waiter_key(root, first), 'cost', 'weight')
  local start = redis.call('HGET', line_key(root, 'line', line), 'start:' .. flow)
  local due = (tonumber(start) or 0) + (tonumber(waiter[1]) or 1) / (tonumber(waiter[2]) or 1)
  redis.call('ZADD', line_key(root, 'flows', line), exact(due), flow)
end

-- The place in the turn of lines after all others
local function last_turn(root)
  local last = redis.call('ZRANGE', root .. 'lines', -1, -1, 'WITHSCORES')
  return text((tonumber(last[2]) or 0) + 1)
end

local function enqueue(root, line, id, waiter, arrival, expiry)
  local state, queue = line_key(root, 'line', line), line_key(root, 'queue', line)
  if redis.call('EXISTS', queue) == 0 then
    -- time without waiters says nothing about how fast slots come
    redis.call('HDEL', state, 'round', 'granted')
    redis.call('ZADD', root .. 'lines', last_turn(root), line)
  end
  if not redis.call('ZSCORE', line_key(root, 'flows', line), waiter.flow) then
    redis.call('HSET', state, 'start:' .. waiter.flow, redis.call('HGET', state, 'round') or '0')
  end
  redis.call('HSET', state, 'weight:' .. waiter.flow, waiter.weight)
  redis.call('PERSIST', state)
  redis.call('ZADD', queue, text(arrival), id)
  redis.call('ZADD', flow_key(root, line, waiter.flow), text(arrival), id)
  redis.call('ZADD', root .. 'waiting', text(expiry), id)
  redis.call('HSET', waiter_key(root, id), 'line', line, 'flow', waiter.flow, 'weight', waiter.weight, 'cost',
    waiter.cost, 'deadline', text(waiter.deadline), 'channel', waiter.channel)
  schedule(root, line, waiter.flow)
end

local function dequeue(root, line, id, flow)
  local queue = line_key(root, 'queue', line)
  redis.call('ZREM', queue, id)
  redis.call('ZREM', flow_key(root, line, flow), id)
  redis.call('ZREM', root .. 'waiting', id)
  redis.call('DEL', waiter_key(root, id))
  schedule(root, line, flow)
  if redis.call('EXISTS', queue) == 0 then
    redis.call('ZREM', root .. 'lines', line)
    redis.call('DEL', line_key(root, 'offer', line))
    redis.call('PEXPIRE', line_key(root, 'line', line), QUIET)
  end
end

-- All that a request took, the count of its minute too: it has not reached an engine
local function abandon(root, id)
  local admission, now = admission_of(redis.call('HGET', lease_key(root, id), 'admission')), milliseconds()
  for _, layer in ipairs(admission and admission.layers or {}) do
    if layer.requests > 0 then
      local rate = rate_of(root, layer, now)
      rate.requests = math.max(0, rate.requests - MINUTE)
      keep_rate(root, layer, rate)
    end
  end
  release(root, id, 0, 0)
end

-- Takes a waiter out for good
local function drop(root, id)
  local waiter = redis.call('HMGET', waiter_key(root, id), 'line', 'flow')
  if waiter[1] then
    dequeue(root, waiter[1], id, waiter[2])
  else
    redis.call('ZREM', root .. 'waiting', id)
  end
  abandon(root, id)
end

-- Whose gateway has been silent for too long
local function sweep(root, now, limit)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', root .. 'waiting', '-inf', text(now), 'LIMIT', 0, limit)) do
    drop(root, id)
  end
end

-- Whose turn it is: id, flow, round and expiry. Those who cannot be served any more go.
local function next_of(root, line, now)
  while true do
    local flow, due = unpack(redis.call('ZRANGE', line_key(root, 'flows', line), 0, 0, 'WITHSCORES'))
    if not flow then
      return nil
    end
    local id = redis.call('ZRANGE', flow_key(root, line, flow), 0, 0)[1]
    local expiry = tonumber(redis.call('ZSCORE', root .. 'waiting', id)) or 0
    local deadline = tonumber(redis.call('HGET', waiter_key(root, id), 'deadline')) or 0
    if math.min(expiry, deadline) > now then
      return id, flow, tonumber(due), expiry
    end
    drop(root, id)
  end
end

-- A slot came: how long that takes is remembered, for those who ask when to come back
local function note(root, line, now)
  local state = line_key(root, 'line', line)
  local interval, granted = unpack(redis.call('HMGET', state, 'interval', 'granted'))
  if granted then
    local gap = math.max(0, now - tonumber(granted))
    interval = interval and tonumber(interval) * 0.8 + gap * 0.2 or gap
    redis.call('HSET', state, 'interval', exact(interval))
  end
  redis.call('HSET', state, 'granted', text(now))
end

-- The slot becomes the lease of whose turn it is. It ends as early as the waiter would have, until its gateway has
-- asked: nobody may be there any more. Returns the id, or nil when nobody waits.
local function grant(root, line, node, now)
  local id, flow, due, expiry = next_of(root, line, now)
  if not id then
    return nil
  end
  local state = line_key(root, 'line', line)
  local round = math.max(tonumber(redis.call('HGET', state, 'round')) or 0, due)
  redis.call('HSET', state, 'round', exact(round), 'start:' .. flow, exact(due))
  note(root, line, now)
  local channel = redis.call('HGET', waiter_key(root, id), 'channel')
  dequeue(root, line, id, flow)
  redis.call('ZADD', root .. 'lines', 'XX', last_turn(root), line)
  hold(root, id, node, expiry, admission_of(redis.call('HGET', lease_key(root, id), 'admission')))
  redis.call('HSET', lease_key(root, id), 'node', node, 'unclaimed', 1)
  redis.call('RPUSH', root .. 'granted:' .. channel, id)
  redis.call('PEXPIRE', root .. 'granted:' .. channel, QUIET)
  return id
end

local function offered(root, line, node)
  local capacity, weight =
    string.match(redis.call('HGET', line_key(root, 'offer', line), node) or '', '^(%S+) (%S+)$')
  return tonumber(capacity), tonumber(weight)
end

-- A slot of the node was given back: the first line in turn that can use it gets it
freed = function(root, node)
  local now
  for _, line in ipairs(redis.call('ZRANGE', root .. 'lines', 0, -1)) do
    local capacity = offered(root, line, node)
    if capacity then
      now = now or milliseconds()
      if (capacity == 0 or live(root, node, now) < capacity) and grant(root, line, node, now) then
        return
      end
    end
  end
end

-- Slots of the nodes on offer, to whose turn it is, up to `most`. Returns how many.
local function pump(root, line, now, most)
  local nodes, given = {}, 0
  for _, node in ipairs(redis.call('HKEYS', line_key(root, 'offer', line))) do
    local capacity, weight = offered(root, line, node)
    local count = live(root, node, now)
    if capacity == 0 or count < capacity then
      nodes[#nodes + 1] = { name = node, capacity = capacity, weight = weight, count = count }
    end
  end
  while given < most do
    local best, at
    for number, node in ipairs(nodes) do
      local score = (node.count + 1) / node.weight
      if not best or score < best then
        best, at = score, number
      end
    end
    if not at or not grant(root, line, nodes[at].name, now) then
      return given
    end
    given = given + 1
    local node = nodes[at]
    node.count = node.count + 1
    if node.capacity > 0 and node.count >= node.capacity then
      table.remove(nodes, at)
    end
  end
  return given
end
