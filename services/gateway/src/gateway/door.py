"""The public door: inference paths go to the hot path, everything else to Litestar."""

import asyncio
import logging
import re
import time
from typing import Any, TypeAlias

import msgspec
from prometheus_client import Counter, Gauge, Histogram

from common.errors import ApiError, InvalidApiKey, InvalidRequest, MethodNotAllowed, RequestTooLarge
from common.ids import new_id
from gateway import asgi
from gateway.body import LONGEST, prepare
from gateway.client import Client, Request
from gateway.endpoints import BY_PATH, TABLE
from gateway.identity import Identity
from gateway.inference import Inference
from gateway.reply import Reply

log = logging.getLogger(__name__)

TRACEPARENT = re.compile(rb"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")

SECONDS_OF = re.compile(rb"\A[0-9]{1,6}(\.[0-9]{1,6})?\Z")

App: TypeAlias = Any  # an ASGI app; each framework types it in its own way

REQUESTS = Counter("gateway_requests", "Inference requests by endpoint and status", ["endpoint", "status"])
LIVE = Gauge("gateway_live_requests", "Inference requests in progress")
SECONDS = Histogram(
    "gateway_request_seconds",
    "From the head of a request to its last byte",
    ["endpoint"],
    buckets=(0.01, 0.1, 1, 10, 100),
)


class Door:
    def __init__(self, identity: Identity, inference: Inference, others: App) -> None:
        self._identity = identity
        self._inference = inference
        self._others = others

    async def __call__(self, request: Request, client: Client) -> None:
        endpoint = BY_PATH.get(request.path)
        if endpoint is None:
            await asgi.serve(self._others, request, client)
            return
        id = new_id()
        reply = Reply(client, str(id), TABLE[endpoint].error, TABLE[endpoint].event)
        status = 200
        began = time.monotonic()
        LIVE.inc()
        try:
            if request.method != "POST":
                raise MethodNotAllowed(f"{request.method} is not allowed here")
            caller = await self._identity.caller(bearer(request.headers))
            if request.too_large:
                raise RequestTooLarge("the body is over the limit")
            prepared = prepare(request.body, endpoint)
            if session := header(request.headers, b"x-session-id"):
                prepared = msgspec.structs.replace(prepared, session=session[:LONGEST])
            trace, patience = traceparent(request.headers), queue_timeout(request.headers)
            await self._inference.answer(id, caller, endpoint, prepared, reply, trace, patience)
        except ApiError as error:
            status = error.status
            reply.error(error)
        except asyncio.CancelledError:
            status = 499
            raise
        except Exception:
            status = 500
            log.exception("request %s failed", id)
            if reply.started:
                raise
            reply.error(ApiError("internal error"))
        finally:
            LIVE.dec()
            REQUESTS.labels(endpoint, status).inc()
            SECONDS.labels(endpoint).observe(time.monotonic() - began)


def traceparent(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The caller's trace, which goes on to the engine (W3C Trace Context); anything else under that name is dropped."""
    value = header(headers, b"traceparent")
    return value.decode() if value is not None and TRACEPARENT.match(value) else None


def header(headers: list[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    for name, value in headers:
        if name == wanted:
            return value
    return None


def queue_timeout(headers: list[tuple[bytes, bytes]]) -> float | None:
    """Seconds that the client would wait for a slot, of `x-queue-timeout`; None: as long as we let it.

    Raises InvalidRequest.
    """
    value = header(headers, b"x-queue-timeout")
    if value is None:
        return None
    if not SECONDS_OF.match(value):
        raise InvalidRequest("expected seconds, as in `30` or `0.5`", param="x-queue-timeout")
    return float(value)


def bearer(headers: list[tuple[bytes, bytes]]) -> str:
    """The key of `Authorization: Bearer …`, or else of Anthropic's `x-api-key`; raises InvalidApiKey."""
    key = None
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip().decode("latin-1")
        if name == b"x-api-key":
            key = value.strip().decode("latin-1")
    if key:
        return key
    raise InvalidApiKey("no API key: send it as `Authorization: Bearer …`")
