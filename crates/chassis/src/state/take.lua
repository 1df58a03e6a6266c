-- Takes from all counters or from none (local.rs has the same arithmetic in words). With a lease of 0 it only looks.
-- KEYS: the counters. ARGV: id, lease in ms, then for each counter its limit, its window in ms (0 for slots) and the amount.
-- Answers 1 or 0, then for each counter: used, wait in ms, resets in ms, window.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, lease = ARGV[1], tonumber(ARGV[2])
local answer, counts = {1}, {}

for i, key in ipairs(KEYS) do
  local at = i * 3
  local limit, window, amount = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local used, wait, resets, index = 0, 0, 0, 0
  if window == 0 then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    used = redis.call('ZCARD', key)
    if used >= limit then wait = 1 end
  else
    local seen, current, previous = unpack(redis.call('HMGET', key, 'i', 'c', 'p'))
    seen, current, previous = tonumber(seen or -2), tonumber(current or 0), tonumber(previous or 0)
    -- A clock that was set back must not open a window a second time.
    index = math.max(math.floor(now / window), seen)
    local elapsed = math.max(now - index * window, 0)
    if seen == index - 1 then
      current, previous = 0, current
    elseif seen ~= index then
      current, previous = 0, 0
    end
    counts[i] = {index, current, previous}
    used = current + math.ceil(previous * (window - elapsed) / window)
    if used + amount > limit then
      if current + amount <= limit then
        wait = window - math.floor((limit - current - amount) * window / previous) - elapsed
      else
        local room = math.max(limit - amount, 0)
        wait = window - elapsed
        if current > room then wait = wait + window - math.floor(room * window / current) end
      end
      wait = math.max(wait, 1)
    end
    if current > 0 then
      resets = 2 * window - elapsed
    elseif previous > 0 then
      resets = window - elapsed
    end
  end
  if wait > 0 then answer[1] = 0 end
  for _, figure in ipairs({used, wait, resets, index}) do answer[#answer + 1] = figure end
end

if answer[1] == 1 and lease > 0 then
  for i, key in ipairs(KEYS) do
    local window, amount = tonumber(ARGV[i * 3 + 1]), tonumber(ARGV[i * 3 + 2])
    if window == 0 then
      redis.call('ZADD', key, now + lease, id)
      redis.call('PEXPIRE', key, lease)
    else
      local index, current, previous = unpack(counts[i])
      local text = function(n) return string.format('%.0f', n) end
      redis.call('HSET', key, 'i', text(index), 'c', text(current + amount), 'p', text(previous))
      redis.call('PEXPIRE', key, 2 * window)
    end
  end
end
return answer
