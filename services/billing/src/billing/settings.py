"""Billing's environment."""

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    postgres_dsn: str
    nats_url: str
    nats_creds: str | None = None
    """Path of a NATS credentials file."""
    nats_replicas: int = 1
    """Copies of each stream; 3 on a cluster."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """`/metrics`, `/healthz` and `/readyz`; 0 serves none."""


class CommandSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of `crosslogic-billing`."""

    postgres_dsn: str
    nats_url: str | None = None
    """Needed to read the stream."""
    nats_creds: str | None = None
    """Path of a NATS credentials file."""
