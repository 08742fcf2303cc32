"""Stripe as far as billing uses it: real HTTP, its request shapes, its windows, its failures on demand."""

from stripe_double.double import Double, serve
from stripe_double.faults import Faults
from stripe_double.webhooks import deliver

__all__ = ["Double", "Faults", "deliver", "serve"]
