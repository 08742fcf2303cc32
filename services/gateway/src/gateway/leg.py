"""One engine's part of a reply: what is asked of it, and how its answer is read."""

from collections.abc import Callable

import msgspec

from common.errors import ApiError
from gateway import resume
from gateway.body import Endpoint, Prepared
from gateway.endpoints import TABLE
from gateway.kept import Kept
from gateway.sse import ReplyStream


class Leg(msgspec.Struct, frozen=True):
    path: str
    body: bytes
    stream: Callable[[], ReplyStream] | None
    """None: a reply that is not streamed."""


class Cut(Exception):
    """A stream broke off in the middle and can go on elsewhere. `error` is for the client when there is none."""

    def __init__(self, error: ApiError, stream: Kept) -> None:
        super().__init__(error.message)
        self.error = error
        self.stream = stream


def first(endpoint: Endpoint, prepared: Prepared, *, continues: bool) -> Leg:
    """`continues`: keep what is needed to go on elsewhere, where that is possible."""
    spec = TABLE[endpoint]
    if not prepared.stream:
        return Leg(spec.engine_path, prepared.body, None)
    if continues and resume.possible(prepared, endpoint):
        return Leg(spec.engine_path, resume.with_ids(prepared), lambda: _kept(prepared))
    return Leg(spec.engine_path, prepared.body, lambda: spec.stream(prepared))


def after(rest: resume.Rest) -> Leg:
    """The leg that gives the rest; one token or more is left."""
    assert rest.body is not None
    return Leg(TABLE["completions"].engine_path, rest.body, lambda: resume.Continued(rest))


def _kept(prepared: Prepared) -> Kept:
    return Kept(
        show_usage=prepared.show_usage,
        show_continuous=prepared.show_continuous,
        show_ids=resume.shows_ids(prepared),
    )
