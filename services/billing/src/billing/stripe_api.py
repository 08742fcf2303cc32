"""Stripe's API as billing uses it; the only importer of `stripe`. Amounts are whole micro-dollars or whole cents.

Every method raises Unavailable when trying again later makes sense (429, 5xx, no answer, a refused API key), and
UpstreamError when Stripe refuses what was asked. Neither says whether Stripe has done it when no answer came: what may
be tried twice carries an identifier, or an idempotency key, or is looked for first.
"""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import aiohttp
import msgspec
import stripe

from common.errors import InvalidRequest, Unavailable, UpstreamError

METER_EVENT = "crosslogic_usage_microusd"
LOOKUP_KEY = "crosslogic_usage_microusd"
PRODUCT = "crosslogic_usage"
CENTS_PER_MICRO = Decimal("0.0001")
SAME_KEY = timedelta(minutes=10)
"""For how long a call that makes something keeps its idempotency key. Stripe keeps a 500 under a key as well, so a key
for ever would fail for ever; what an older call made is found by looking."""


class Catalog(msgspec.Struct, frozen=True):
    meter_id: str
    price_id: str


class Subscription(msgspec.Struct, frozen=True):
    id: str
    started_at: datetime


class Session(msgspec.Struct, frozen=True):
    url: str


class Stripe:
    def __init__(self, client: stripe.StripeClient) -> None:
        self._v1 = client.v1

    async def catalog(self, now: datetime) -> Catalog:
        """The one meter and the one price of a micro-dollar; made where they are missing."""
        with _translated():
            meter = await self._meter()
            found = await self._v1.prices.list_async({"lookup_keys": [LOOKUP_KEY], "active": True})
            if found.data:
                return Catalog(meter, found.data[0].id)
            price = await self._v1.prices.create_async(
                {
                    "currency": "usd",
                    "product": await self._product(),
                    "lookup_key": LOOKUP_KEY,
                    "unit_amount_decimal": CENTS_PER_MICRO,
                    "billing_scheme": "per_unit",
                    "recurring": {"interval": "month", "usage_type": "metered", "meter": meter},
                },
                {"idempotency_key": _key("price", LOOKUP_KEY, now)},
            )
            return Catalog(meter, price.id)

    async def _meter(self) -> str:
        meters = await self._v1.billing.meters.list_async({"status": "active", "limit": 100})
        async for meter in meters.auto_paging_iter():
            if meter.event_name == METER_EVENT:
                return meter.id
        made = await self._v1.billing.meters.create_async(
            {
                "display_name": "Inference (micro-dollars)",
                "event_name": METER_EVENT,
                "default_aggregation": {"formula": "sum"},
                "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
                "value_settings": {"event_payload_key": "value"},
            }
        )
        return made.id

    async def _product(self) -> str:
        try:
            return (await self._v1.products.retrieve_async(PRODUCT)).id
        except stripe.InvalidRequestError as error:
            if error.code != "resource_missing":
                raise
        return (await self._v1.products.create_async({"id": PRODUCT, "name": "Inference"})).id

    async def customer(self, tenant_id: UUID, name: str, email: str, now: datetime) -> str:
        """The tenant's customer, found by its metadata or made; names are as they were when it was made."""
        with _translated():
            known = await self._v1.customers.list_async({"email": email, "limit": 100})
            async for customer in known.auto_paging_iter():
                if getattr(customer.metadata, "tenant_id", None) == str(tenant_id):
                    return customer.id
            made = await self._v1.customers.create_async(
                {"name": name, "email": email, "metadata": {"tenant_id": str(tenant_id)}},
                {"idempotency_key": _key("customer", str(tenant_id), now)},
            )
            return made.id

    async def rename(self, customer_id: str, name: str, email: str) -> None:
        with _translated():
            await self._v1.customers.update_async(customer_id, {"name": name, "email": email})

    async def subscription(self, customer_id: str, tenant_id: UUID, price_id: str, now: datetime) -> Subscription:
        """The customer's running subscription to the price, found or made; it renews with the month of UTC."""
        with _translated():
            known = await self._v1.subscriptions.list_async({"customer": customer_id, "price": price_id})
            if known.data:
                return _subscription(known.data[0])
            made = await self._v1.subscriptions.create_async(
                {
                    "customer": customer_id,
                    "items": [{"price": price_id}],
                    "billing_cycle_anchor": int(_next_month(now).timestamp()),
                    "proration_behavior": "none",
                    "metadata": {"tenant_id": str(tenant_id)},
                },
                {"idempotency_key": _key("subscription", str(tenant_id), now)},
            )
            return _subscription(made)

    async def report(self, identifier: str, customer_id: str, micro: int, at: datetime) -> None:
        """Returns once Stripe has accepted it, or said that it has this identifier already."""
        try:
            with _translated():
                await self._v1.billing.meter_events.create_async(
                    {
                        "event_name": METER_EVENT,
                        "identifier": identifier,
                        "payload": {"stripe_customer_id": customer_id, "value": str(micro)},
                        "timestamp": int(at.timestamp()),
                    }
                )
        except UpstreamError as error:
            if not is_duplicate(error):
                raise

    async def sums(self, meter_id: str, customer_id: str, since: datetime, until: datetime) -> dict[datetime, int]:
        """Micro-dollars by hour as Stripe has aggregated them until now, from and to whole hours."""
        with _translated():
            pages = await self._v1.billing.meters.event_summaries.list_async(
                meter_id,
                {
                    "customer": customer_id,
                    "start_time": int(since.timestamp()),
                    "end_time": int(until.timestamp()),
                    "value_grouping_window": "hour",
                    "limit": 100,
                },
            )
            return {
                datetime.fromtimestamp(sum.start_time, UTC): round(sum.aggregated_value)
                async for sum in pages.auto_paging_iter()
            }

    async def total(self, meter_id: str, customer_id: str, since: datetime, until: datetime) -> int:
        """Micro-dollars of all that was metered, from the minute of `since` on to the one of `until`."""
        with _translated():
            pages = await self._v1.billing.meters.event_summaries.list_async(
                meter_id,
                {
                    "customer": customer_id,
                    "start_time": int(since.timestamp()) // 60 * 60,
                    "end_time": int(until.timestamp()) // 60 * 60 + 60,
                },
            )
            return sum([round(sum.aggregated_value) async for sum in pages.auto_paging_iter()])

    async def grant(
        self, credit_id: UUID, customer_id: str, cents: int, expires_at: datetime | None, *, paid: bool, now: datetime
    ) -> str:
        """A credit grant, found by its metadata or made. Returns its id."""
        with _translated():
            known = await self._v1.billing.credit_grants.list_async({"customer": customer_id, "limit": 100})
            async for grant in known.auto_paging_iter():
                if getattr(grant.metadata, "credit_id", None) == str(credit_id):
                    return grant.id
            params: stripe.params.billing.CreditGrantCreateParams = {
                "customer": customer_id,
                "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": cents}},
                "applicability_config": {"scope": {"price_type": "metered"}},
                "category": "paid" if paid else "promotional",
                "metadata": {"credit_id": str(credit_id)},
            }
            if expires_at is not None:
                params["expires_at"] = int(expires_at.timestamp())
            made = await self._v1.billing.credit_grants.create_async(
                params, {"idempotency_key": _key("grant", str(credit_id), now)}
            )
            return made.id

    async def buy_credit(
        self, customer_id: str, tenant_id: UUID, cents: int, success_url: str, cancel_url: str
    ) -> Session:
        """A page on which the customer pays for credit in advance."""
        with _translated():
            made = await self._v1.checkout.sessions.create_async(
                {
                    "mode": "payment",
                    "customer": customer_id,
                    "line_items": [
                        {
                            "quantity": 1,
                            "price_data": {
                                "currency": "usd",
                                "unit_amount": cents,
                                "product_data": {"name": "Inference credit"},
                            },
                        }
                    ],
                    "success_url": success_url,
                    "cancel_url": cancel_url,
                    "metadata": {"tenant_id": str(tenant_id), "kind": "credit"},
                }
            )
            return Session(made.url or "")

    async def save_card(self, customer_id: str, tenant_id: UUID, success_url: str, cancel_url: str) -> Session:
        """A page on which the customer leaves a way to be charged by."""
        with _translated():
            made = await self._v1.checkout.sessions.create_async(
                {
                    "mode": "setup",
                    "customer": customer_id,
                    "currency": "usd",
                    "success_url": success_url,
                    "cancel_url": cancel_url,
                    "metadata": {"tenant_id": str(tenant_id), "kind": "card"},
                }
            )
            return Session(made.url or "")

    async def portal(self, customer_id: str, return_url: str) -> Session:
        with _translated():
            made = await self._v1.billing_portal.sessions.create_async(
                {"customer": customer_id, "return_url": return_url}
            )
            return Session(made.url)


@asynccontextmanager
async def open_stripe(api_key: str, base: str | None, timeout: float) -> AsyncIterator[Stripe]:
    """`timeout` in seconds of a whole call."""
    logging.getLogger("stripe").setLevel(logging.WARNING)
    async with aiohttp.ClientSession() as session:
        http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=timeout), session=session)
        api = base or stripe.DEFAULT_API_BASE
        yield Stripe(stripe.StripeClient(api_key, http_client=http, base_addresses={"api": api}, max_network_retries=0))


def verify(body: bytes, signature: str | None, secrets: Sequence[str], tolerance: int) -> None:
    """Raises InvalidRequest unless one of the secrets has signed this body within `tolerance` seconds."""
    problem = "no webhook secret is set"
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(body, signature, secret, tolerance)
        except (stripe.SignatureVerificationError, UnicodeDecodeError) as error:
            late = str(error).startswith("Timestamp")
            problem = "it was signed too long ago" if late else "it is not signed by Stripe"
        else:
            return
    raise InvalidRequest(f"the webhook is refused: {problem}", param="stripe-signature")


def is_duplicate(error: UpstreamError) -> bool:
    """Stripe's 400 for a meter event that it has; it comes without a code of its own."""
    return error.code == "duplicate_meter_event" or "event already exists with identifier" in error.message


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise Unavailable("Stripe refuses our API key") from error
    except (stripe.RateLimitError, stripe.APIConnectionError) as error:
        raise Unavailable(f"Stripe is not available: {error.user_message}", retry_after=_retry_after(error)) from error
    except stripe.StripeError as error:
        status = error.http_status or 500
        if status >= 500 or status == 409:
            raise Unavailable(f"Stripe answered {status}", retry_after=_retry_after(error)) from error
        raise UpstreamError(f"Stripe refuses it: {error.user_message}", code=error.code) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"Stripe did not answer: {type(error).__name__}") from error


def _retry_after(error: stripe.StripeError) -> int | None:
    text = next((value for name, value in (error.headers or {}).items() if name.lower() == "retry-after"), "")
    return int(text) if text.isdigit() else None


def _subscription(found: stripe.Subscription) -> Subscription:
    return Subscription(found.id, datetime.fromtimestamp(found.start_date, UTC))


def _key(kind: str, of: str, now: datetime) -> str:
    return f"{kind}-{of}-{int(now.timestamp() // SAME_KEY.total_seconds())}"


def _next_month(now: datetime) -> datetime:
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
