"""What a request counts as against limits, and what its client is told of them. Pure."""

import msgspec
from prometheus_client import Counter

from common.errors import ApiError, Overloaded
from common.leases import Layer
from gateway.leases import Ask, Standing, Verdict
from gateway.live import Layer as Limits

REFUSED = Counter("gateway_refused_requests", "Requests over a limit", ["layer", "kind"])

BYTES_PER_TOKEN = 4
UNITS = {"requests": "requests a minute", "tokens": "tokens a minute", "concurrency": "requests at once"}


class Size(msgspec.Struct, frozen=True):
    """Of one request, in tokens."""

    prompt: int
    """An estimate."""
    most_prompt: int
    """It can hardly be more: a token is a byte at least."""
    output: int
    """The most that it may generate, all choices together."""
    per_choice: int | None
    """The limit that each choice must be given, because the client gave none."""


def size(*, prompt_bytes: int, max_output: int | None, choices: int, max_model_len: int, default_output: int) -> Size:
    """`max_model_len` 0 is unknown."""
    estimate = -(-prompt_bytes // BYTES_PER_TOKEN)
    most = min(prompt_bytes, max_model_len) if max_model_len else prompt_bytes
    if max_output is not None:
        return Size(estimate, most, min(max_output, max_model_len * choices) if max_model_len else max_output, None)
    each = default_output
    if max_model_len:
        each = max(1, min(each, max_model_len - estimate))
    return Size(estimate, most, each * choices, each)


def layers(limits: tuple[Limits, ...], everyone: Layer) -> tuple[Layer, ...]:
    """The widest first; those that limit nothing are left out."""
    own = [
        Layer(
            f"{layer.name}:{layer.id}",
            layer.requests_per_minute or 0,
            layer.tokens_per_minute or 0,
            layer.max_concurrency or 0,
        )
        for layer in limits
    ]
    return tuple(layer for layer in (everyone, *own) if layer.requests or layer.tokens or layer.concurrency)


def refusal(verdict: Verdict, ask: Ask) -> ApiError | None:
    """None: it was let in, or only the nodes are full."""
    seconds = -(-verdict.number // 1000) or None
    if verdict.kind in UNITS:
        layer = ask.layers[int(verdict.which) - 1]
        name = layer.key.partition(":")[0]
        REFUSED.labels(name, verdict.kind).inc()
        limit = getattr(layer, verdict.kind)
        wait = f"try again in {seconds} s"
        return Overloaded(
            f"the {name} limit of {limit} {UNITS[verdict.kind]} is reached; {wait}",
            code="rate_limit_exceeded",
            retry_after=seconds,
        )
    if verdict.kind == "budget":
        assert ask.hold is not None
        name = ask.hold.budgets[int(verdict.which) - 1][0].partition(":")[0]
        REFUSED.labels(name, "budget").inc()
        what = {"tenant": "the monthly budget", "credit": "the credit", "key": "the key's budget"}[name]
        if seconds:
            text = f"{what} is held by running requests; try again in {seconds} s, or ask for fewer tokens"
        else:
            text = f"{what} is used up, or does not cover this request's most tokens"
        return Overloaded(text, code="insufficient_quota", retry_after=seconds)
    return None


def headers(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    """`x-ratelimit-*`, of the tightest layer; a kind that nothing limits has none."""
    found: list[tuple[bytes, bytes]] = []
    for name, standing in (("requests", verdict.requests), ("tokens", verdict.tokens)):
        if standing is not None:
            found += _headers(name, standing)
    return found


def _headers(name: str, standing: Standing) -> list[tuple[bytes, bytes]]:
    return [
        (f"x-ratelimit-limit-{name}".encode(), str(standing.limit).encode()),
        (f"x-ratelimit-remaining-{name}".encode(), str(standing.remaining).encode()),
        (f"x-ratelimit-reset-{name}".encode(), f"{standing.reset_ms / 1000:g}s".encode()),
    ]
