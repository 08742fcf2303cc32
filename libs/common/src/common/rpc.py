"""Admin calls forwarded by the gateway to the service that owns them, over NATS request–reply.

The gateway has authenticated the caller; the owner validates the rest. An HTTP call becomes a `Call` on
`rpc.<service>`, its answer a `Reply`.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import msgspec

from common.bus import Bus
from common.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound, Unavailable, invalid, reply_of

log = logging.getLogger(__name__)
T = TypeVar("T")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    path: str
    query: dict[str, str] = {}
    body: msgspec.Raw = msgspec.Raw(b"null")
    actor: str
    """Who calls, as the audit log names them."""
    request_id: str

    def parse(self, kind: type[T]) -> T:
        """The body as `kind`; raises InvalidRequest naming the field."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise invalid(error) from error

    def parse_query(self, kind: type[T]) -> T:
        """The query as `kind`, numbers and times from their text; raises InvalidRequest naming the field."""
        try:
            return msgspec.convert(self.query, kind, strict=False)
        except msgspec.ValidationError as error:
            raise invalid(error) from error


class Reply(msgspec.Struct, frozen=True):
    status: int
    body: msgspec.Raw


Handler = Callable[..., Awaitable[object]]


class Router(Generic[T]):
    """Routes of one service: `handler(context, call, **path parameters)` returns what becomes the JSON body."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler, int]] = []

    def route(self, method: str, path: str, status: int = 200) -> Callable[[Handler], Handler]:
        """`{name}` matches one path segment."""
        pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path) + r"\Z")

        def add(handler: Handler) -> Handler:
            self._routes.append((method, pattern, handler, status))
            return handler

        return add

    async def dispatch(self, context: T, call: Call) -> Reply:
        try:
            handler, parameters, status = self._find(call)
            answer = await handler(context, call, **parameters)
        except ApiError as error:
            return Reply(error.status, msgspec.Raw(msgspec.json.encode(reply_of(error))))
        except Exception:  # a bug must not leave the caller waiting
            log.exception("%s %s failed, request %s", call.method, call.path, call.request_id)
            return Reply(500, msgspec.Raw(msgspec.json.encode(reply_of(ApiError("internal error")))))
        return Reply(status, msgspec.Raw(msgspec.json.encode(answer)))

    def _find(self, call: Call) -> tuple[Handler, dict[str, str], int]:
        known_path = False
        for method, pattern, handler, status in self._routes:
            if found := pattern.match(call.path):
                known_path = True
                if method == call.method:
                    return handler, found.groupdict(), status
        if known_path:
            raise MethodNotAllowed(f"{call.method} is not allowed on {call.path}")
        raise NotFound(f"no such path: {call.path}")


async def serve(bus: Bus, service: str, router: Router[T], context: T) -> None:
    async def reply(body: bytes) -> bytes:
        call = msgspec.json.decode(body, type=Call)
        return msgspec.json.encode(await router.dispatch(context, call))

    await bus.answer(f"rpc.{service}", reply)


async def forward(bus: Bus, service: str, call: Call) -> Reply:
    """Raises Unavailable when the owner does not answer, InvalidRequest when the call is too large for a message."""
    body = msgspec.json.encode(call)
    if len(body) > 900_000:
        raise InvalidRequest("the body is too large")
    try:
        return msgspec.json.decode(await bus.ask(f"rpc.{service}", body), type=Reply)
    except Unavailable as error:
        raise Unavailable(f"the {service} service does not answer", retry_after=2) from error
