-- Every operation on a cart. Redis runs it as a whole, so two of them never mix.
--
-- KEYS[1]  the cart, a hash. Its fields: `owner` (empty for nobody), `expires_at` (in microseconds), `next_line` (the
--          number of the next line), and for every line its product id with `number quantity`. From the first checkout on:
--          `user` (whose order it becomes), `attempts` (checkouts that may still succeed), `frozen_until` (in
--          milliseconds), and in the end `order`.
-- ARGV     the operation; the user who asks (empty for anybody); how long the cart lives from now on, in milliseconds,
--          and until when, in microseconds; then what the operation needs.
-- Returns  a status, and with `ok` the fields of the cart and their values.
local operation, asker, ttl, expires_at = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local function get(field)
  return redis.call('HGET', KEYS[1], field)
end

local function set(...)
  redis.call('HSET', KEYS[1], ...)
end

local function number(field)
  return tonumber(get(field)) or 0
end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function answer(status)
  local fields = redis.call('HGETALL', KEYS[1])
  table.insert(fields, 1, status)
  return fields
end

local function changed()
  set('expires_at', expires_at)
  redis.call('PEXPIRE', KEYS[1], ttl)
  return answer('ok')
end

local function lines()
  local count = 0
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.find(field, '^%d') then count = count + 1 end
  end
  return count
end

local operations = {}

function operations.create()
  redis.call('DEL', KEYS[1])
  set('owner', asker, 'next_line', 0)
  return changed()
end

function operations.find()
  return answer('ok')
end

-- A quantity of 0 takes the product out.
function operations.put(product, quantity, max_lines)
  local frozen = number('attempts') > 0 and number('frozen_until') > now()
  if get('order') or frozen then return { 'checked-out' } end

  if quantity == '0' then
    redis.call('HDEL', KEYS[1], product)
    return changed()
  end

  local line = string.match(get(product) or '', '^%d+')
  if not line then
    if lines() >= tonumber(max_lines) then return { 'full' } end
    line = number('next_line')
    set('next_line', line + 1)
  end
  set(product, line .. ' ' .. quantity)
  return changed()
end

-- Freezes the cart, until every checkout that has begun is over, or for `lease` milliseconds.
function operations.begin(user, lease)
  if get('user') and get('user') ~= user then return { 'another-user' } end
  if lines() == 0 then return { 'empty' } end

  if not get('order') then
    set('user', user, 'attempts', number('attempts') + 1, 'frozen_until', now() + tonumber(lease))
  end
  return changed()
end

-- A checkout was refused for good. When no other one may still succeed, the cart is as it was before.
function operations.release()
  if not get('order') then
    set('attempts', number('attempts') - 1)
    if number('attempts') <= 0 then redis.call('HDEL', KEYS[1], 'user', 'attempts', 'frozen_until') end
  end
  return changed()
end

function operations.finish(order)
  set('order', order)
  redis.call('HDEL', KEYS[1], 'attempts', 'frozen_until')
  return changed()
end

if operation ~= 'create' then
  if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return { 'missing' } end

  local owner = get('owner')
  local is_open = owner and (owner == '' or asker == '' or owner == asker)
  if not is_open then return { 'missing' } end
end
return operations[operation](unpack(ARGV, 5))
