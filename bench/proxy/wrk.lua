-- Requests as the environment says, and the result as one line of JSON.
local vary = os.getenv("BENCH_VARY") == "1"
local body_bytes = tonumber(os.getenv("BENCH_BODY_BYTES") or "0")
local n = 0

if os.getenv("BENCH_CLOSE") == "1" then wrk.headers["Connection"] = "close" end
if body_bytes > 0 then
  wrk.method = "POST"
  wrk.body = string.rep("x", body_bytes)
  wrk.headers["Content-Type"] = "application/octet-stream"
end
if vary then
  local browser = {
    ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ["Accept-Language"] = "en-US,en;q=0.5", ["Accept-Encoding"] = "gzip, deflate, br, zstd",
    ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ["Connection"] = "keep-alive", ["Upgrade-Insecure-Requests"] = "1", ["Sec-Fetch-Dest"] = "document",
    ["Sec-Fetch-Mode"] = "navigate", ["Sec-Fetch-Site"] = "same-origin", ["Sec-Fetch-User"] = "?1", ["Priority"] = "u=0, i",
    ["Referer"] = "http://localhost/some/page?id=12345",
  }
  for name, value in pairs(browser) do wrk.headers[name] = value end
  function request()
    n = n + 1
    wrk.headers["Cookie"] = "session=0123456789abcdef0123456789abcdef" .. n .. "; theme=dark; _ga=GA1.2.1234567890.1234567890"
    return wrk.format(nil, "/p/" .. n)
  end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\nBENCH {"requests":%d,"durationUs":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"p50Us":%d,"p99Us":%d}\n',
    summary.requests, summary.duration, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
