-- Gives back, or takes more, whatever the limit (local.rs has the same in words).
-- KEYS: the counters. ARGV: id, then for each counter its window in ms (0 for slots), which window, and what to add.
for i, key in ipairs(KEYS) do
  local at = i * 3 - 1
  local window, index, delta = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  if window == 0 then
    redis.call('ZREM', key, ARGV[1])
  else
    local seen, current, previous = unpack(redis.call('HMGET', key, 'i', 'c', 'p'))
    local text = function(n) return string.format('%.0f', math.max(n, 0)) end
    if seen and tonumber(seen) == index then
      redis.call('HSET', key, 'c', text(current + delta))
    elseif seen and tonumber(seen) == index + 1 then
      redis.call('HSET', key, 'p', text(previous + delta))
    end
  end
end
return 1
