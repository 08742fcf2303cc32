"""From a parsed request to an ASGI app and back, for everything that is not inference."""

import asyncio
from typing import Any
from urllib.parse import unquote

from gateway.client import Client, Headers, Request

OURS = (b"content-length", b"connection", b"transfer-encoding")


async def serve(app: Any, request: Request, client: Client) -> None:  # Any: each framework types ASGI in its own way
    """One request. The body is whole already, and so is what the app answers in one message."""
    received = False
    status, headers, started = 500, Headers(), False

    async def receive() -> dict[str, Any]:
        nonlocal received
        if received:
            await asyncio.Event().wait()  # a client that goes away cancels the app instead
        received = True
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, headers, started
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = [header for header in message.get("headers", []) if header[0].lower() not in OURS]
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if not started and not more:
            head = client.head(status, headers, len(body))
            client.write(head if request.method == "HEAD" else head + body)
            return
        if not started:
            started = True
            client.write(client.head(status, headers, None))
        if body:
            client.write(b"%x\r\n%s\r\n" % (len(body), body))
        if not more:
            client.write(b"0\r\n\r\n")
        await client.drained()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(request.path.decode("latin-1")),
        "raw_path": request.path,
        "query_string": request.query,
        "root_path": "",
        "headers": request.headers,
        "client": (client.address, 0),
        "server": None,
        "state": {},
    }
    await app(scope, receive, send)
