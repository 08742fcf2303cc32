#!lua name=crosslogic
-- Keys: what Redis holds of live requests. The contract is `common.leases`. The files here are joined in the order of
-- their names into one library: a file may use what the ones before it define.
--
-- KEYS[1] is `{ns}:leases`; every other key derives from it and shares its hash tag, hence its cluster slot:
--   {ns}:leases      zset  id -> expiry (ms), or until when a reaper has claimed it
--   {ns}:lease:<id>  hash  intent, node, progress, admission, tokens
--   {ns}:node:<node> zset  id -> expiry (ms); its live members are the node's load
--   {ns}:pending     hash  node -> the sum of `tokens` of all members of its set
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

local function concurrency_key(root, layer)
  return root .. 'live:' .. layer
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

local function admission_of(packed)
  return packed and cmsgpack.unpack(packed)
end
