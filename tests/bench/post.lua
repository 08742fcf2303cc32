-- wrk: POST the body in BODY with the key in KEY; each connection waits WAIT milliseconds or so before each request
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("KEY") or "none")
wrk.body = os.getenv("BODY")
local wait = tonumber(os.getenv("WAIT") or "0")
if wait > 0 then
  function delay()
    return math.random(wait / 2, wait * 3 / 2)
  end
end
