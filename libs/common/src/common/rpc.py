"""Admin calls forwarded by the gateway to the service that owns them, over NATS request–reply.

The gateway has authenticated the caller; the owner validates the rest. An HTTP call becomes a `Call` on
`rpc.<service>`, its answer a `Reply`.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from common.bus import Bus
from common.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound, Unavailable, invalid, reply_of

log = logging.getLogger(__name__)
T = TypeVar("T")

LARGEST = 900_000
"""Bytes of a call and of an answer: NATS carries a megabyte."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    path: str
    query: dict[str, str] = {}
    body: msgspec.Raw = msgspec.Raw(b"null")
    actor: str
    """Who calls, as the audit log names them."""
    request_id: str
    token_sha256: str | None = None
    """Of the token that came with a call on `/nodes/*`, in hex: the owner alone knows whose it is."""

    def parse(self, kind: type[T]) -> T:
        """The body as `kind`; raises InvalidRequest naming the field."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise invalid(error) from error

    def parse_query(self, kind: type[T]) -> T:
        """The query as `kind`, numbers and times from their text; an empty value counts as not given.

        Raises InvalidRequest naming the parameter that is wrong, missing or unknown: a misspelt filter filters nothing.
        """
        known = {field.encode_name for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]  # T is a Struct
        if unknown := sorted(self.query.keys() - known):
            raise InvalidRequest(
                f"unknown parameter {unknown[0]}; known are {', '.join(sorted(known))}", param=unknown[0]
            )
        try:
            return msgspec.convert({name: text for name, text in self.query.items() if text}, kind, strict=False)
        except msgspec.ValidationError as error:
            raise invalid(error) from error


class Document(msgspec.Struct, frozen=True):
    """What a handler returns for an answer that is not JSON."""

    media_type: str
    text: str
    file_name: str | None = None
    """Under which a browser keeps it; None shows it."""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    status: int
    body: msgspec.Raw
    """JSON; of another media type its text as a JSON string."""
    media_type: str = "application/json"
    file_name: str | None = None


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
            return _refusal(error)
        except Exception:  # a bug must not leave the caller waiting
            log.exception("%s %s failed, request %s", call.method, call.path, call.request_id)
            return _refusal(ApiError("internal error"))
        if isinstance(answer, Document):
            text = msgspec.Raw(msgspec.json.encode(answer.text))
            return Reply(status, text, answer.media_type, answer.file_name)
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


def _refusal(error: ApiError) -> Reply:
    return Reply(error.status, msgspec.Raw(msgspec.json.encode(reply_of(error))))


def fitting(items: Sequence[T]) -> Sequence[T]:
    """As many of the first ones as a list in an answer has room for."""
    room = LARGEST - 1000  # for what is around the list
    for index, item in enumerate(items):
        room -= len(msgspec.json.encode(item)) + 1
        if room < 0:
            return items[:index]
    return items


async def serve(bus: Bus, service: str, router: Router[T], context: T) -> None:
    async def reply(body: bytes) -> bytes:
        try:
            call = msgspec.json.decode(body, type=Call)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            return msgspec.json.encode(_refusal(invalid(error)))
        answer = msgspec.json.encode(await router.dispatch(context, call))
        if len(answer) > LARGEST:
            return msgspec.json.encode(_refusal(InvalidRequest("the answer is too large: ask for less at a time")))
        return answer

    await bus.answer(f"rpc.{service}", reply)


async def forward(bus: Bus, service: str, call: Call) -> Reply:
    """Raises Unavailable when the owner does not answer, InvalidRequest when the call is too large for a message."""
    body = msgspec.json.encode(call)
    if len(body) > LARGEST:
        raise InvalidRequest("the body is too large")
    try:
        return msgspec.json.decode(await bus.ask(f"rpc.{service}", body), type=Reply)
    except Unavailable as error:
        raise Unavailable(f"the {service} service does not answer", retry_after=2) from error
