-- wrk: POST the body in BODY with the key in KEY
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("KEY") or "none")
wrk.body = os.getenv("BODY")
