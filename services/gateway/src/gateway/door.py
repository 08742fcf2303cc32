"""The public door: inference paths go to the hot path, everything else to Litestar."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from prometheus_client import Counter, Gauge, Histogram

from common.errors import ApiError, InvalidApiKey, InvalidRequest, MethodNotAllowed, RequestTooLarge
from common.ids import new_id
from gateway.body import Endpoint, prepare
from gateway.identity import Identity
from gateway.inference import PATHS, Inference
from gateway.reply import Reply, Send

log = logging.getLogger(__name__)

Scope: TypeAlias = dict[str, Any]  # Any: ASGI
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
App: TypeAlias = Any  # an ASGI app; each framework types it in its own way

REQUESTS = Counter("gateway_requests", "Inference requests by endpoint and status", ["endpoint", "status"])
LIVE = Gauge("gateway_live_requests", "Inference requests in progress")
SECONDS = Histogram(
    "gateway_request_seconds",
    "From the head of a request to its last byte",
    ["endpoint"],
    buckets=(0.01, 0.1, 1, 10, 100),
)
DISCARDED = 64 * 1024 * 1024
_ENDPOINTS: dict[str, Endpoint] = {path: endpoint for endpoint, path in PATHS.items()}


class Door:
    def __init__(
        self, identity: Identity, inference: Inference, others: App, max_body_bytes: int, body_timeout: float
    ) -> None:
        self._identity = identity
        self._inference = inference
        self._others = others
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = _ENDPOINTS.get(scope["path"])
        if endpoint is None:
            await self._others(scope, receive, send)
            return
        id = new_id()
        reply = Reply(send, str(id))
        status = 200
        began = time.monotonic()
        LIVE.inc()
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{scope['method']} is not allowed here")
            caller = await self._identity.caller(bearer(scope["headers"]))
            prepared = prepare(await self._body(scope, receive), endpoint)
            with _cancelled_by(receive):
                await self._inference.answer(id, caller, endpoint, prepared, reply)
        except ApiError as error:
            status = error.status
            await reply.error(error)
        except asyncio.CancelledError:
            status = 499
            raise
        except Exception:
            status = 500
            log.exception("request %s failed", id)
            if not reply.started:
                await reply.error(ApiError("internal error"))
        finally:
            LIVE.dec()
            REQUESTS.labels(endpoint, status).inc()
            SECONDS.labels(endpoint).observe(time.monotonic() - began)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. One over the limit is read to its end all the same, within reason: a client that cannot send
        does not listen either."""
        try:
            async with asyncio.timeout(self._body_timeout):
                message = await receive()
                if not message.get("more_body"):
                    body: bytes = message.get("body", b"")
                else:
                    parts, size = [message.get("body", b"")], len(message.get("body", b""))
                    while message.get("more_body") and size < self._max_body_bytes + DISCARDED:
                        message = await receive()
                        size += len(message.get("body", b""))
                        if size <= self._max_body_bytes:
                            parts.append(message.get("body", b""))
                    if size > self._max_body_bytes:
                        raise RequestTooLarge(f"the body is over the limit of {self._max_body_bytes} bytes")
                    body = b"".join(parts)
        except TimeoutError as error:
            raise InvalidRequest(f"the body did not arrive within {self._body_timeout:g} s") from error
        if len(body) > self._max_body_bytes:
            raise RequestTooLarge(f"the body is over the limit of {self._max_body_bytes} bytes")
        return body


@contextmanager
def _cancelled_by(receive: Receive) -> Iterator[None]:
    """Cancel the block when the client hangs up. The server says so in `receive`'s next message, and only there."""
    task = asyncio.current_task()
    assert task is not None

    def hung_up(_: object) -> None:
        task.cancel()

    gone = asyncio.ensure_future(receive())
    gone.add_done_callback(hung_up)
    try:
        yield
    finally:
        gone.remove_done_callback(hung_up)
        gone.cancel()


def bearer(headers: list[tuple[bytes, bytes]]) -> str:
    """The key of `Authorization: Bearer …`; raises InvalidApiKey."""
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip().decode("latin-1")
    raise InvalidApiKey("no API key: send it as `Authorization: Bearer …`")
