"""What Stripe's webhooks say, in our words, and which of two of them holds. Pure."""

from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta

from common.errors import Unprocessable

T = TypeVar("T")
Status: TypeAlias = Literal["open", "failed", "uncollectible", "paid", "void"]
FINAL: tuple[Status, ...] = ("paid", "void")
INVOICES: dict[str, Status] = {
    "invoice.finalized": "open",
    "invoice.payment_failed": "failed",
    "invoice.payment_action_required": "failed",
    "invoice.marked_uncollectible": "uncollectible",
    "invoice.paid": "paid",
    "invoice.payment_succeeded": "paid",
    "invoice.voided": "void",
}
CREDIT_PAID = ("checkout.session.completed", "checkout.session.async_payment_succeeded")
METER_ERRORS = "v1.billing.meter."
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]


class Content(msgspec.Struct, frozen=True):
    object: msgspec.Raw = msgspec.Raw(b"null")


class Event(msgspec.Struct, frozen=True):
    id: Text
    type: Text
    created: Annotated[int, Meta(ge=0, le=2**40)] | str
    """Seconds since 1970; in thin events ISO 8601."""
    data: Content = Content()

    @property
    def at(self) -> datetime:
        if isinstance(self.created, int):
            return datetime.fromtimestamp(self.created, UTC)
        try:
            return datetime.fromisoformat(self.created).astimezone(UTC)
        except ValueError:
            raise Unprocessable("`created` is no time") from None


class Invoice(msgspec.Struct, frozen=True):
    id: Text
    customer: Text
    amount_due: Annotated[int, Meta(ge=-(10**14), le=10**14)] | None = None
    """Cents."""


class Checkout(msgspec.Struct, frozen=True):
    """A page on which somebody has paid, or left a card."""

    id: Text
    customer: Text | None = None
    payment_status: str = ""
    amount_total: Annotated[int, Meta(ge=0, le=10**14)] | None = None
    """Cents."""
    currency: str | None = None
    metadata: dict[str, str] = {}

    @property
    def tenant_id(self) -> UUID | None:
        """Whose credit was paid; None when it is none of ours."""
        if self.metadata.get("kind") != "credit":
            return None
        try:
            return UUID(self.metadata.get("tenant_id", ""))
        except ValueError:
            raise Unprocessable(f"checkout {self.id} names no tenant") from None


class Known(msgspec.Struct, frozen=True):
    """The newest that is known of an invoice."""

    status: Status
    told_at: datetime
    failed_at: datetime | None = None


def read(body: bytes) -> Event:
    """Raises Unprocessable."""
    return _parse(body, Event)


def invoice(event: Event) -> Invoice:
    return _parse(event.data.object, Invoice)


def checkout(event: Event) -> Checkout:
    return _parse(event.data.object, Checkout)


def newer(known: Known | None, status: Status, at: datetime) -> Known | None:
    """What is known after an event of `at`; None where it was overtaken.

    Seconds are all that Stripe tells of the order, so that within one the status decides: what was paid or voided stays
    so, whatever came late, and a failed payment says more than that an invoice is open.
    """
    order: tuple[Status, ...] = ("open", "failed", "uncollectible", *FINAL)
    if known is not None:
        if known.status in FINAL:
            return None
        before = (at, order.index(status)) <= (known.told_at, order.index(known.status))
        if before and status not in FINAL:
            return None
    failed_at = known.failed_at if known else None
    if status in FINAL:
        failed_at = None
    elif status in ("failed", "uncollectible") and failed_at is None:
        failed_at = at
    return Known(status, at, failed_at)


def _parse(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Unprocessable(f"it is not as expected: {error}") from error
