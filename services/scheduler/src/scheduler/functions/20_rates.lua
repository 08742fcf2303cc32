-- Rates: what each layer has used of its minute, and may use at once.
--
-- A minute's allowance is a bucket that drains evenly. Its contents are counted in sixty-thousandths of a request or of
-- a token, of which a limit of n a minute drains n a millisecond: all numbers are integers below 2^53. `reserved` are
-- the whole tokens that running requests may still use; they do not drain, so that what they turn out to be fits.
local MINUTE = 60000
local MOST = 9e15
local DAY = 86400000

local function rate_of(root, layer, now)
  local value = redis.call('GET', root .. 'rate:' .. layer.key)
  local requests, tokens, reserved, at = string.match(value or '', '^(%d+) (%d+) (%d+) (%d+)$')
  if not at then
    return { requests = 0, tokens = 0, reserved = 0, at = now }
  end
  at = tonumber(at)
  local elapsed = math.max(0, now - at)
  return {
    requests = layer.requests > 0 and math.max(0, tonumber(requests) - elapsed * layer.requests) or 0,
    tokens = layer.tokens > 0 and math.max(0, tonumber(tokens) - elapsed * layer.tokens) or 0,
    reserved = tonumber(reserved),
    at = math.max(at, now),
  }
end

-- How many milliseconds `amount` takes to drain
local function draining(amount, limit)
  return limit > 0 and amount > 0 and math.ceil(amount / limit) or 0
end

local function keep_rate(root, layer, rate)
  local key = root .. 'rate:' .. layer.key
  if rate.requests == 0 and rate.tokens == 0 and rate.reserved == 0 then
    redis.call('DEL', key)
    return
  end
  local value = table.concat({ text(rate.requests), text(rate.tokens), text(rate.reserved), text(rate.at) }, ' ')
  if rate.reserved > 0 then
    redis.call('SET', key, value)
  else
    local empty = math.max(draining(rate.requests, layer.requests), draining(rate.tokens, layer.tokens))
    redis.call('SET', key, value, 'PX', text(empty + 1))
  end
end

-- A layer that allows fewer tokens than one request may use lets it pass when nothing else is there
local function reservation(layer, tokens)
  return layer.tokens > 0 and math.min(tokens, layer.tokens) or 0
end

-- The layers of an admission as they stand, and the refusal that lasts longest, if any: { kind, layer, milliseconds }
local function weigh(root, layers, tokens, now)
  local rates, worst = {}, nil
  local function refuse(kind, at, wait)
    if not worst or wait > worst[3] then
      worst = { kind, at, wait }
    end
  end
  for at, layer in ipairs(layers) do
    local rate = rate_of(root, layer, now)
    rates[at] = rate
    if layer.concurrency > 0 then
      local count = redis.call('ZCOUNT', concurrency_key(root, layer.key), '(' .. text(now), '+inf')
      if count >= layer.concurrency then
        refuse('concurrency', at, 1000)
      end
    end
    local over = rate.requests + MINUTE - layer.requests * MINUTE
    if layer.requests > 0 and over > 0 then
      refuse('requests', at, draining(over, layer.requests))
    end
    over = rate.tokens + (rate.reserved + reservation(layer, tokens) - layer.tokens) * MINUTE
    if layer.tokens > 0 and over > 0 then
      refuse('tokens', at, draining(over, layer.tokens))
    end
  end
  return rates, worst
end

-- For the headers: limit, remaining and milliseconds until all is there again, of the tightest layer of each kind
local function standing(layers, rates)
  local requests, tokens = { -1, 0, 0 }, { -1, 0, 0 }
  for at, layer in ipairs(layers) do
    local rate = rates[at]
    if layer.requests > 0 then
      local remaining = math.max(0, math.floor(layer.requests - rate.requests / MINUTE))
      if requests[1] < 0 or remaining < requests[2] then
        requests = { layer.requests, remaining, draining(rate.requests, layer.requests) }
      end
    end
    if layer.tokens > 0 then
      local used = rate.tokens + rate.reserved * MINUTE
      local remaining = math.max(0, math.floor(layer.tokens - used / MINUTE))
      if tokens[1] < 0 or remaining < tokens[2] then
        tokens = { layer.tokens, remaining, draining(used, layer.tokens) }
      end
    end
  end
  return { requests[1], requests[2], requests[3], tokens[1], tokens[2], tokens[3] }
end
