"""One request in flight: what is known of it so far, and the usage record it ends in."""

from datetime import datetime
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import msgspec

from common.budgets import Price
from common.events import Outcome, UsageRecorded, UsageSource
from common.leases import Progress
from gateway.body import Endpoint
from gateway.sse import ReplyStream, Usage

if TYPE_CHECKING:
    from gateway.leases import Ask


class Layer(msgspec.Struct, frozen=True):
    """What all requests of one tenant, environment or key may take together; None is no limit."""

    name: Literal["tenant", "environment", "key"]
    id: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a key stands for."""

    api_key_id: UUID
    tenant_id: UUID
    environment_id: UUID
    region: str = ""
    models: frozenset[str] | None = None
    """The only models that it may use; None is all."""
    expires_at: datetime | None = None
    suspended: bool = False
    scopes: frozenset[str] = frozenset({"inference", "usage:read", "models:read"})
    """What the key may be used for."""
    limits: tuple[Layer, ...] = ()
    """The layers that limit anything, the widest first."""
    budget: int | None = None
    """What the key may spend in a month, in pico-dollars."""
    priority: Literal["high", "normal", "low"] = "normal"
    """The class in which it waits where nodes are full."""
    weight: float = 1.0
    """The tenant's share beside others of that class."""


class Counted(msgspec.Struct, frozen=True):
    """Tokens by an engine's tokenizer."""

    prompt: int = 0
    reply: int = 0


class Live:
    """Mutable on purpose: the stream writes to it, the renewal and the settlement read from it."""

    __slots__ = (
        "ask",
        "attempts",
        "caller",
        "counted",
        "endpoint",
        "first_token_at",
        "id",
        "intent",
        "lease_id",
        "leased",
        "model",
        "node_id",
        "outcome",
        "price",
        "reached_engine",
        "started_at",
        "stream",
        "streamed",
        "traceparent",
        "usage",
    )

    def __init__(
        self, *, id: UUID, caller: Caller, model: str, endpoint: Endpoint, streamed: bool, started_at: datetime
    ) -> None:
        self.id = id
        self.lease_id = str(id)
        self.traceparent: str | None = None
        self.caller = caller
        self.model = model
        self.endpoint = endpoint
        self.streamed = streamed
        self.started_at = started_at
        self.node_id: str | None = None
        self.leased = False
        self.ask: Ask | None = None
        """What it was let in with, for a Redis that has lost it."""
        self.price: Price | None = None
        """What billing will charge by."""
        self.attempts = 0
        self.reached_engine = False
        """An engine has the request and has not refused it."""
        self.outcome: Outcome | None = None
        """None while it runs, and for requests that leave no record."""
        self.stream: ReplyStream | None = None
        self.usage: Usage | None = None
        """Of a reply that was not streamed."""
        self.counted: Counted | None = None
        """For a request that ended before the engine told."""
        self.first_token_at: datetime | None = None
        self.intent = msgspec.json.encode(self.record(started_at, "gateway_lost"))

    @property
    def uncounted(self) -> bool:
        """It ended while an engine was working on it that had not told the tokens."""
        stream = self.stream
        if self.outcome is None or self.usage is not None or (stream is not None and stream.final):
            return False
        if stream is not None and stream.estimated:
            return True
        return self.outcome == "client_disconnected" and (stream is None or not stream.input_tokens)

    def progress(self) -> Progress:
        stream = self.stream
        if stream is None:
            return Progress(attempts=self.attempts)
        return Progress(
            stream.input_tokens, stream.cached_tokens, stream.output_tokens, self.first_token_at, self.attempts
        )

    def record(self, ended_at: datetime, outcome: Outcome) -> UsageRecorded:
        source, input_tokens, cached_tokens, output_tokens = self._tokens()
        caller = self.caller
        return UsageRecorded(
            id=self.id,
            time=ended_at,
            tenant_id=caller.tenant_id,
            environment_id=caller.environment_id,
            api_key_id=caller.api_key_id,
            model=self.model,
            region=caller.region,
            node_id=self.node_id,
            endpoint=self.endpoint,
            streamed=self.streamed,
            outcome=outcome,
            usage_source=source,
            input_tokens=input_tokens,
            cached_tokens=cached_tokens,
            output_tokens=output_tokens,
            started_at=self.started_at,
            first_token_at=self.first_token_at,
            ended_at=ended_at,
            attempts=max(self.attempts, 1),
        )

    def _tokens(self) -> tuple[UsageSource, int, int, int]:
        stream, usage = self.stream, self.usage
        if usage is not None:
            prompt = usage.prompt_tokens or 0
            return "engine", prompt, min(usage.cached_tokens, prompt), usage.completion_tokens or 0
        if stream is not None and stream.final:
            return "engine", stream.input_tokens, stream.cached_tokens, stream.output_tokens
        counted = self.counted or Counted()
        if stream is not None and stream.estimated:
            reply = counted.reply or stream.output_tokens
            return "estimated", counted.prompt or stream.input_tokens, stream.cached_tokens, reply
        if stream is not None and stream.input_tokens:
            return "continuous", stream.input_tokens, stream.cached_tokens, stream.output_tokens
        # an engine that reports no usage on its chunks: an event is a token at least
        return "estimated", counted.prompt, 0, counted.reply or (stream.events if stream is not None else 0)
