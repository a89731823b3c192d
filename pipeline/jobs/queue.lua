-- The queue, one script for all that it does, so that each step is one step for everybody who shares the server.
--
-- KEYS  1 jobs     hash: name to what is known of it, as JSON: lane, id of its stream entry once it is due, by whom it is taken,
--                  until when (ms) without an entry, again: when it is due once more,
--                  lost: restored for somebody who has a lease of it that an emptied server has forgotten
--       2 later    sorted set: names by the time (ms) when they are due
--       3 heads    hash: lane to the last id that its consumer group has given out
--       4.. a stream for each lane, in their order; entries hold the name as n
-- ARGV  1 what to do, then as that says. Times go in and out as milliseconds from now: the server's clock is the only one.
--
-- The consumer group of each stream is "workers".
local jobs, later, heads = KEYS[1], KEYS[2], KEYS[3]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local function get(name)
  local raw = redis.call('HGET', jobs, name)
  if raw then return cjson.decode(raw) end
  return nil
end

local function set(name, j) redis.call('HSET', jobs, name, cjson.encode(j)) end

local function lane(j) return KEYS[3 + j.lane] end

-- remove takes the stream entry of a job away.
local function remove(j)
  if j.id then
    redis.call('XACK', lane(j), 'workers', j.id)
    redis.call('XDEL', lane(j), j.id)
    j.id = nil
  end
end

-- due puts a job into its lane.
local function due(name, j)
  j.id = redis.call('XADD', lane(j), '*', 'n', name)
  j.by, j.again, j.lost = nil, nil, nil
  set(name, j)
end

-- wait lets a job wait for its time.
local function wait(name, j, at)
  j.by, j.again = nil, nil
  if at <= now then
    redis.call('ZREM', later, name)
    due(name, j)
  else
    set(name, j)
    redis.call('ZADD', later, at, name)
  end
end

local function put(name, number, at, lost)
  local j = get(name) or {}
  j.lost = lost
  if j.by then
    j.again = at
    if number < j.lane then j.urge = number end
    set(name, j)
    return
  end
  remove(j)
  j.lane = number
  wait(name, j, at)
end

local function taken(name, j, by)
  j.by = by
  set(name, j)
  return { name, tostring(j.lane), j.id }
end

local verbs = {}

-- put: lane, due, name, after how long (ms) who waits looks by itself
verbs.put = function()
  local due = tonumber(ARGV[3])
  put(ARGV[4], tonumber(ARGV[2]), now + due)
  if due < tonumber(ARGV[5]) then redis.call('PUBLISH', jobs, '') end
end

-- restore: lane, due, name, and so on
verbs.restore = function()
  local n = 0
  for i = 2, #ARGV, 3 do
    local j = get(ARGV[i + 2])
    if j and not (j.by and j['until'] and j['until'] < now) then
      -- it is known
    else
      redis.call('HDEL', jobs, ARGV[i + 2])
      put(ARGV[i + 2], tonumber(ARGV[i]), now + tonumber(ARGV[i + 1]), true)
      n = n + 1
    end
  end
  return n
end

-- take: consumer, lease (ms), whether to look for leases of the dead, then for each lane its head start (ms), below 0 for a lane that is shut.
-- It returns name, lane and id of a job, or in how many milliseconds the next one is due.
verbs.take = function()
  local by, lease = ARGV[2], tonumber(ARGV[3])
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, 200)) do
    redis.call('ZREM', later, name)
    local j = get(name)
    if j then due(name, j) end
  end
  local best, rank
  for i = 1, #KEYS - 3 do
    local stream, start = KEYS[3 + i], tonumber(ARGV[4 + i])
    if redis.call('EXISTS', stream) == 1 then
      local last = redis.call('HGET', heads, tostring(i))
      if not last then
        redis.call('XGROUP', 'CREATE', stream, 'workers', '0')
        redis.call('HSET', heads, tostring(i), '0-0')
        last = '0-0'
      end
      if ARGV[4] == '1' then
        local r = redis.call('XAUTOCLAIM', stream, 'workers', by, lease, '0-0', 'COUNT', 1)
        local entry = r[2][1]
        if entry then
          local name = entry[2][2]
          local j = get(name)
          if j and j.id == entry[1] then return taken(name, j, by) end
          redis.call('XACK', stream, 'workers', entry[1])
          redis.call('XDEL', stream, entry[1])
        end
      end
      if start >= 0 then
        local first = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
        if first then
          local at = tonumber(string.match(first[1], '^%d+')) + start
          if not rank or at < rank then best, rank = i, at end
        end
      end
    end
  end
  if best then
    local entry = redis.call('XREADGROUP', 'GROUP', 'workers', by, 'COUNT', 1, 'STREAMS', KEYS[3 + best], '>')[1][2][1]
    redis.call('HSET', heads, tostring(best), entry[1])
    local name = entry[2][2]
    local j = get(name)
    if j and j.id == entry[1] then return taken(name, j, by) end
    redis.call('XACK', KEYS[3 + best], 'workers', entry[1])
    redis.call('XDEL', KEYS[3 + best], entry[1])
    return { '0' }
  end
  local next = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
  if next[2] then return { tostring(tonumber(next[2]) - now) } end
  return { '' }
end

-- beat: consumer, lease (ms), lane, id, name. It renews a lease; one that an emptied server has forgotten is made anew.
verbs.beat = function()
  local by, name = ARGV[2], ARGV[6]
  local j = get(name)
  if not j then
    set(name, { lane = tonumber(ARGV[4]), by = by, ['until'] = now + tonumber(ARGV[3]) })
    return 1
  end
  if j.lost and not j.by and not j.id then
    redis.call('ZREM', later, name)
    j.by, j.lost = by, nil
  end
  if j.by ~= by or (j.id and j.id ~= ARGV[5]) then return 0 end
  if j.id then
    redis.call('XCLAIM', lane(j), 'workers', by, 0, j.id, 'JUSTID')
  else
    j['until'] = now + tonumber(ARGV[3])
    set(name, j)
  end
  return 1
end

-- done: consumer, id, due again or -1, name, lane. What an emptied server has forgotten is due again all the same.
verbs.done = function()
  local by, id, again, name = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
  if again >= 0 then again = now + again end
  local j = get(name)
  if not j and again >= 0 then
    wait(name, { lane = tonumber(ARGV[6]) }, again)
    return 1
  end
  if not j or j.by ~= by or (j.id and j.id ~= id) then return 0 end
  remove(j)
  if j.again and (again < 0 or j.again < again) then again = j.again end
  if again < 0 then
    redis.call('HDEL', jobs, name)
  else
    wait(name, { lane = j.urge or j.lane }, again)
  end
  return 1
end

-- drop: name
verbs.drop = function()
  local j = get(ARGV[2])
  if j then
    remove(j)
    redis.call('ZREM', later, ARGV[2])
    redis.call('HDEL', jobs, ARGV[2])
  end
end

return verbs[ARGV[1]]()
