"""The server: routes, idempotency keys and faults around what `objects` and `meters` know."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import msgspec
from aiohttp import web

from stripe_double import form, objects, shapes
from stripe_double.faults import Faults
from stripe_double.meters import Meters
from stripe_double.objects import Object
from stripe_double.routes import paged, routes
from stripe_double.shapes import Refused


class Double:
    """Everything that Stripe holds is a plain dict, for tests to look at."""

    def __init__(self, delay: float = 0.0) -> None:
        self.url = ""
        self.ahead = 0.0
        """Seconds by which this Stripe's clock runs ahead of the machine's."""
        self.faults: Faults | None = None
        self.meters = Meters(delay)
        self.kinds: dict[str, dict[str, Object]] = {}
        self.exchanges: list[tuple[str, str, str, bytes]] = []
        """Method, path, form and answer of what was done."""
        self._kept: dict[str, tuple[str, int, bytes]] = {}
        self._numbers = itertools.count(1)
        self._routes = routes(self)

    @property
    def now(self) -> float:
        return time.time() + self.ahead

    def of(self, kind: str) -> dict[str, Object]:
        """By id."""
        return self.kinds.setdefault(kind, {})

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers):08d}"

    def event(self, type: str, subject: Object, created: int | None = None) -> Object:
        return objects.event(
            self.new_id("evt"),
            type,
            msgspec.json.decode(msgspec.json.encode(subject)),
            int(self.now) if created is None else created,
        )

    def bill(self, subscription: Object, start: int, end: int) -> Object:
        """A draft invoice of what the meter has for this time, rounded once."""
        item = subscription["items"]["data"][0]
        meter = self.of("meter")[item["price"]["recurring"]["meter"]]
        sums = self.meters.sums(meter["event_name"], subscription["customer"], start, end, end - start, self.now)
        quantity = sum(sums.values(), Decimal(0))
        amount = (quantity * Decimal(item["price"]["unit_amount_decimal"])).quantize(Decimal(1), ROUND_HALF_UP)
        id = self.new_id("in")
        line = {"id": f"il_{id}", "object": "line_item", "amount": int(amount), "quantity": int(quantity)}
        made = objects.invoice(id, subscription["customer"], subscription["id"], [line], int(self.now))
        self.of("invoice")[id] = made
        return made

    async def answer(self, request: web.Request) -> web.StreamResponse:
        fault = self.faults.next(request.method, request.path) if self.faults else None
        if fault == "429":
            headers = {"Retry-After": str(self.faults.retry_after)} if self.faults and self.faults.retry_after else {}
            return _told(
                429,
                {
                    "error": {
                        "message": "Request rate limit exceeded.",
                        "type": "invalid_request_error",
                        "code": "rate_limit",
                    }
                },
                headers,
            )
        if fault == "late":
            await asyncio.Event().wait()  # until the caller hangs up
        text = request.query_string if request.method == "GET" else await request.text()
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        if key and key in self._kept:
            sent, status, body = self._kept[key]
            if sent != request.path + text:
                message = (
                    "Keys for idempotent requests can only be used with the same parameters they were first used with."
                )
                return _told(400, {"error": {"message": message, "type": "idempotency_error"}})
            return web.Response(
                status=status, body=body, content_type="application/json", headers={"Idempotent-Replayed": "true"}
            )
        if fault == "500":
            status, body = (
                500,
                msgspec.json.encode({"error": {"message": "An unknown error occurred.", "type": "api_error"}}),
            )
        else:
            status, body = self._do(request.method, request.path, form.parse(text))
            if status == 200:
                self.exchanges.append((request.method, request.path, text, body))
        if key and (status < 400 or status >= 500):
            self._kept[key] = (request.path + text, status, body)
        if fault == "lost":
            await asyncio.Event().wait()
        if fault == "cut":
            assert request.transport is not None
            request.transport.abort()
        headers = {"Request-Id": self.new_id("req"), "Stripe-Should-Retry": "false"}
        return web.Response(status=status, body=body, content_type="application/json", headers=headers)

    def _do(self, method: str, path: str, params: form.Params) -> tuple[int, bytes]:
        try:
            for verb, parts, kind, handler in self._routes:
                if verb == method and (ids := _matched(parts, path)) is not None:
                    shapes.check(kind, params)
                    return 200, msgspec.json.encode(handler(params, *ids))
            raise Refused(f"Unrecognized request URL ({method}: {path}).", status=404)
        except Refused as refused:
            return refused.status, msgspec.json.encode(refused.body)

    def make(self, kind: str, prefix: str, build: Callable[..., Object], params: form.Params, *more: Any) -> Object:
        made = build(self.new_id(prefix), params, int(self.now), *more)
        if made["id"] in self.of(kind):
            raise Refused(f"{kind} already exists.", code="resource_already_exists", param="id")
        self.of(kind)[made["id"]] = made
        return made

    def one(self, kind: str, id: str) -> Object:
        if id not in self.of(kind):
            raise Refused(f"No such {kind}: '{id}'", status=404, code="resource_missing", param="id")
        return self.of(kind)[id]

    def page(self, kind: str, params: form.Params, url: str, good: Callable[[Object], bool]) -> Object:
        """The newest first."""
        found = [made for made in reversed(self.of(kind).values()) if good(made)]
        return paged(found, params, url)


def _matched(parts: list[str], path: str) -> list[str] | None:
    given = path.split("/")
    if len(given) != len(parts) or any(part not in ("{}", g) for part, g in zip(parts, given, strict=True)):
        return None
    return [g for part, g in zip(parts, given, strict=True) if part == "{}"]


def _told(status: int, body: Object, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers)


@asynccontextmanager
async def serve(delay: float = 0.0) -> AsyncIterator[Double]:
    """`delay` in seconds until the sums of meters have what was accepted."""
    double = Double(delay)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", double.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    double.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield double
    finally:
        await runner.cleanup()
