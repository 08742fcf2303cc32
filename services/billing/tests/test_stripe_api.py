"""The official client against the double."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import aiohttp
import pytest
import stripe_double
from stripe_double import Double, Faults
from stripe_double.signing import header

from billing import stripe_api
from billing.stripe_api import Stripe, open_stripe
from common.errors import InvalidRequest, Unavailable, UpstreamError

TENANT = UUID(int=7)
NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    async with stripe_double.serve() as double:
        yield double


@pytest.fixture
async def api(double: Double) -> AsyncIterator[Stripe]:
    async with open_stripe("sk_test_1", double.url, timeout=0.5) as api:
        yield api


async def test_what_exists_is_found_and_not_made_again(api: Stripe, double: Double) -> None:
    first = await api.catalog(NOW)
    customer = await api.customer(TENANT, "t", "t@example.com", NOW)
    other = await api.customer(UUID(int=8), "u", "t@example.com", NOW)
    subscription = await api.subscription(customer, TENANT, first.price_id, NOW)
    grant = await api.grant(TENANT, customer, 500, NOW + HOUR, paid=True, now=NOW)
    later = NOW + 10 * HOUR
    assert await api.catalog(later) == first
    assert await api.customer(TENANT, "t", "t@example.com", later) == customer != other
    assert await api.subscription(customer, TENANT, first.price_id, later) == subscription
    assert await api.grant(TENANT, customer, 500, NOW + HOUR, paid=True, now=later) == grant
    assert {kind: len(made) for kind, made in double.kinds.items()} == {
        "meter": 1,
        "product": 1,
        "price": 1,
        "customer": 2,
        "subscription": 1,
        "credit_grant": 1,
    }
    await api.rename(customer, "v", "v@example.com")
    assert double.of("customer")[customer]["email"] == "v@example.com"


async def test_an_answer_that_was_lost_makes_nothing_twice(api: Stripe, double: Double) -> None:
    for fault in ("lost", "cut"):
        double.faults = Faults(1, "/v1/customers", **{fault: 1.0})
        with pytest.raises(Unavailable):
            await stripe_only_create(api, fault)
        double.faults = None
        assert await stripe_only_create(api, fault)
    assert len(double.of("customer")) == 2


async def stripe_only_create(api: Stripe, name: str) -> str:
    """Found by an e-mail that nobody has, so that only the idempotency key can tell that it was made."""
    return await api.customer(UUID(bytes=name.ljust(16).encode()), name, f"{name}@example.com", NOW)


async def test_a_failure_that_stripe_keeps_under_a_key_is_left_behind(api: Stripe, double: Double) -> None:
    double.faults = Faults(1, "/v1/subscriptions", "POST", _500=1.0)
    catalog = await api.catalog(NOW)
    customer = await api.customer(TENANT, "t", "t@example.com", NOW)
    for _ in range(2):
        with pytest.raises(Unavailable, match="answered 500"):
            await api.subscription(customer, TENANT, catalog.price_id, NOW)
        double.faults = None
    assert await api.subscription(customer, TENANT, catalog.price_id, NOW + stripe_api.SAME_KEY)


async def test_an_identifier_counts_once_and_a_duplicate_is_delivered(api: Stripe, double: Double) -> None:
    catalog = await api.catalog(NOW)
    customer = await api.customer(TENANT, "t", "t@example.com", NOW)
    hour = NOW.replace(minute=0, second=0, microsecond=0)
    for _ in range(3):
        await api.report("id-1", customer, 250, hour - HOUR)
    await api.report("id-2", customer, 50, hour - HOUR)
    await api.report("id-3", customer, 7, hour)
    sums = await api.sums(catalog.meter_id, customer, hour - 3 * HOUR, hour + HOUR)
    assert sums == {hour - HOUR: 300, hour: 7}
    double.ahead = 25 * 3600  # the window has passed: Stripe knows the identifier no more
    await api.report("id-1", customer, 250, hour - HOUR)
    assert double.meters.total() == 557


@pytest.mark.parametrize("ahead", [timedelta(days=-36), timedelta(hours=1)])
async def test_a_time_outside_the_window_is_refused(api: Stripe, ahead: timedelta) -> None:
    customer = await api.customer(TENANT, "t", "t@example.com", NOW)
    with pytest.raises(UpstreamError, match="timestamp must"):
        await api.report("id", customer, 1, NOW + ahead)


@pytest.mark.parametrize("fault", ["429", "500", "lost", "late", "cut"])
async def test_failures_say_to_come_back(api: Stripe, double: Double, fault: str) -> None:
    double.faults = Faults(1, retry_after=3, **{f"_{fault}": 1.0})
    with pytest.raises(Unavailable) as raised:
        await api.report("id", "cus_1", 1, NOW)
    assert raised.value.retry_after == (3 if fault == "429" else None)


async def test_unknown_and_missing_parameters_are_refused_by_the_double(double: Double) -> None:
    for form in ({"nonsense": "1"}, {"event_name": "e"}, {"event_name": "e", "payload": "x"}):
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{double.url}/v1/billing/meter_events", data=form) as response,
        ):
            assert response.status == 400


SECRETS = ["whsec_new", "whsec_old"]


@pytest.mark.parametrize("secret", SECRETS)
def test_any_of_the_secrets_may_have_signed(secret: str) -> None:
    stripe_api.verify(b"{}", header(b"{}", secret, int(time.time()) - 200), SECRETS, 300)


@pytest.mark.parametrize(
    ("signed", "secret", "seconds_ago"),
    [
        (b"{}", "whsec_other", 0),
        (b"{ }", "whsec_new", 0),
        (b"{}", "whsec_new", 400),
        (b"{}", "whsec_new", 365 * 86_400),
    ],
)
def test_what_nobody_known_has_signed_just_now_is_refused(signed: bytes, secret: str, seconds_ago: int) -> None:
    with pytest.raises(InvalidRequest):
        stripe_api.verify(b"{}", header(signed, secret, int(time.time()) - seconds_ago), SECRETS, 300)


@pytest.mark.parametrize("signature", ["t=1,v1=", "nonsense", "", None])
def test_what_is_no_signature_is_refused(signature: str | None) -> None:
    with pytest.raises(InvalidRequest):
        stripe_api.verify(b"{}", signature, SECRETS, 300)


def test_without_a_secret_nothing_is_believed() -> None:
    with pytest.raises(InvalidRequest):
        stripe_api.verify(b"{}", header(b"{}", "", int(time.time())), [], 300)
