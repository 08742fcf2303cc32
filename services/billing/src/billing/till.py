"""What the routes need to take money: Stripe, where it is on, and whose webhooks are believed."""

import msgspec

from billing.customers import Customers
from billing.dunning import Dunning
from billing.stripe_api import Stripe
from common.errors import NotFound


class Office(msgspec.Struct, frozen=True):
    stripe: Stripe
    customers: Customers


class Till(msgspec.Struct, frozen=True, kw_only=True):
    secrets: tuple[str, ...] = ()
    dunning: Dunning | None = None
    opened: Office | None = None
    """None while Stripe is off."""

    @property
    def office(self) -> Office:
        """Raises NotFound while Stripe is off."""
        if self.opened is None:
            raise NotFound("there is nowhere to pay: Stripe is off")
        return self.opened
