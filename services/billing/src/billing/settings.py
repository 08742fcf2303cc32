"""Billing's environment."""

from typing import Annotated

import msgspec
from msgspec import Meta


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
    stripe_api_key: str | None = None
    """Without it nothing is told to Stripe, and waits."""
    stripe_webhook_secret: str = ""
    """Secrets of webhook endpoints, comma separated: while one is rotated, both count."""
    stripe_api_base: str | None = None
    """URL of something else that speaks as Stripe does."""
    stripe_interval: Annotated[float, Meta(gt=0)] = 60.0
    """Seconds of usage that go into one meter event of a tenant."""
    stripe_timeout: Annotated[float, Meta(gt=0, le=25)] = 20.0
    """Seconds of one call to Stripe."""
    stripe_grace_days: Annotated[float, Meta(ge=0)] = 7.0
    """From a payment that failed until the tenant is suspended, unless it is made."""
    smtp_url: str | None = None
    """`smtp://user:password@host:587` or `smtps://…`; without it no e-mail is sent."""
    mail_from: str = "crosslogic@localhost"
    notice_timeout: Annotated[float, Meta(gt=0)] = 15.0
    """Seconds of one try to send a notification."""
    notice_first_pause: Annotated[float, Meta(gt=0)] = 5.0
    """Seconds from the first try to the second; later ones are longer, for three days."""
    notice_loopback: bool = False
    """Let webhooks go to this machine, and in plain HTTP: for tests and for trying things out."""
    operators_email: str | None = None
    """Operators are told here what concerns them: lost nodes, failed launches, failed payments."""
    operators_webhook_url: str | None = None
    operators_webhook_secret: str | None = None
    """`whsec_` and 32 random bytes in base64; needed with the URL."""
    operators_slack_url: str | None = None
    failpoint: str | None = None
    """For tests: the step of a batch at which the process kills itself."""


class CommandSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of `crosslogic-billing`."""

    postgres_dsn: str
    nats_url: str | None = None
    """Needed to read the stream."""
    nats_creds: str | None = None
    """Path of a NATS credentials file."""
