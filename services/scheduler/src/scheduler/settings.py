"""The scheduler's environment."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    postgres_dsn: str
    nats_url: str
    redis_url: str
    nats_creds: str | None = None
    """Path of a NATS credentials file."""
    nats_replicas: int = 1
    """Copies of each stream; 3 on a cluster."""
    redis_namespace: str = "crosslogic"
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """`/metrics`, `/healthz` and `/readyz`; 0 serves none."""
    health_interval: float = 1.0
    """Seconds between two looks at a node, give or take a fifth."""
    load_interval: float = 1.0
    """Seconds between two looks at how busy the engines are."""
    count_interval: float = 60.0
    """Seconds between two readings of the engines' counters, which billing compares with what it charged."""
    health_timeout: float = 2.0
    """Seconds a node has to answer `/health` and `/v1/models`."""
    generation_timeout: float = 30.0
    """Seconds a new node has for its first token, which may include warming up."""
    breaker_failures: Annotated[int, Meta(ge=1)] = 5
    """Requests in a row that fail until their node is left out."""
    breaker_volume: Annotated[int, Meta(ge=1)] = 20
    """Requests within `breaker_window` seconds until the share of those that failed says anything."""
    breaker_share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    breaker_window: Annotated[float, Meta(ge=1)] = 30.0
    breaker_open: Annotated[float, Meta(gt=0)] = 1.0
    """Seconds until a node that was left out is probed; twice as long each further time in a row."""
    breaker_longest: Annotated[float, Meta(gt=0)] = 60.0
    concurrency: Annotated[int, Meta(ge=1)] = 32
    """Requests at once that a replica is meant for, where neither its deployment nor its node says."""
    reap_interval: float = 0.25
    """Seconds between two looks for expired leases."""
    claim: float = 10.0
    """Seconds until another replica settles what a reaper has begun."""
