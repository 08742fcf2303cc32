"""The gateway's settings, each read from the environment at boot."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    admin_api_token: str
    """Opens `/admin/*`: 32 characters or more, and none that is well known."""
    postgres_dsn: str
    nats_url: str
    redis_url: str
    spool_dir: str
    """Where usage records wait while NATS is away; must survive a restart of the process."""
    admin_api_token_previous: str | None = None
    """Accepted too, while a token is being rotated."""
    nats_creds: str | None = None
    nats_replicas: int = 1
    redis_namespace: Annotated[str, Meta(pattern=r"\A[a-z0-9_-]{1,64}\Z")] = "crosslogic"
    host: str = "127.0.0.1"
    port: int = 8080
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """0 is off."""
    max_body_bytes: int = 10 * 1024 * 1024
    body_timeout: float = 30.0
    """Seconds in which a request's body must have come."""
    client_stall_timeout: float = 60.0
    """Seconds after which a client that reads nothing is cut, and its node freed."""
    lease_ttl_ms: Annotated[int, Meta(ge=1000)] = 5000
    """A request whose gateway has been silent for this long is settled by the scheduler."""
    renew_ms: Annotated[int, Meta(ge=100)] = 1000
    """How often all live requests report their progress: the most that a SIGKILL leaves unbilled."""
    connect_timeout: float = 2.0
    first_byte_timeout: float = 300.0
    """Seconds until the engine's first token."""
    idle_timeout: float = 60.0
    """Seconds between two chunks of an engine."""
    total_timeout: float = 3600.0
    """Seconds that an engine may take for one request."""
    max_attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    """Nodes tried for one request before the first byte."""
    breaker_failures: Annotated[int, Meta(ge=1)] = 3
    """Requests in a row that fail until this gateway leaves their node out, whatever the scheduler thinks."""
    continuation: bool = True
    """Let a stream whose engine is lost go on at another one, from the token ids delivered."""
    otel_exporter_otlp_endpoint: str | None = None
    """Where spans go, by OTLP over HTTP; none are made without it."""
    trace_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.01
    """Share of the traces that are kept where the caller has not decided."""
    queue_seconds: Annotated[float, Meta(ge=0)] = 30.0
    """How long a request waits for a slot while all nodes are busy, unless `x-queue-timeout` asks for less; 0: nobody
    waits."""
    cold_start_seconds: Annotated[float, Meta(ge=0)] = 600.0
    """The same for a model that is deployed and has no node yet."""
    queue_length: Annotated[int, Meta(ge=1)] = 1000
    """Requests that may wait for one model; a tenant may take half of what is left of it."""
    queue_length_of_tenant: Annotated[int, Meta(ge=1)] = 500
    first_comment_seconds: Annotated[float, Meta(gt=0)] = 5.0
    """After which the client of a stream that waits is told so. A refusal before has its own status, one after is an
    event of the stream."""
    comment_seconds: Annotated[float, Meta(gt=0)] = 10.0
    """Between two such comments."""
    shutdown_timeout: float = 600.0
    """Seconds that running streams may take after SIGTERM."""
    key_cache_seconds: float = 30.0
    """How long a key is believed without asking Postgres; a change of the key evicts it at once."""
    last_used_seconds: float = 60.0
    """How often it is written when each key was last used."""
    trusted_proxies: str = ""
    """CIDR ranges, comma separated, whose `X-Forwarded-For` is believed."""
    auth_failures: Annotated[int, Meta(ge=1)] = 10
    """Wrong credentials that one address may try at once on `/admin/*` and `/account/*`."""
    auth_failure_seconds: Annotated[float, Meta(gt=0)] = 6.0
    """Seconds until it may try one more."""
    oidc_issuers: str = ""
    """URLs, comma separated, of the issuers whose tokens open `/account/*`; empty: nobody's."""
    oidc_audience: str = "crosslogic"
    default_max_output: Annotated[int, Meta(ge=1)] = 4096
    """Tokens that a request without `max_tokens` counts as; under a hard budget, the most that it may generate."""
    global_requests_per_minute: Annotated[int, Meta(ge=0)] = 0
    """Of all tenants together; 0 is no limit, as for the next two."""
    global_tokens_per_minute: Annotated[int, Meta(ge=0)] = 0
    global_max_concurrency: Annotated[int, Meta(ge=0)] = 0
    fail_open_seconds: Annotated[float, Meta(ge=0)] = 60.0
    """How long limits and budgets are not kept while Redis is away; then what they limit gets 503."""
