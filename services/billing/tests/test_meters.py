"""From the outbox to Stripe's meter, with a Stripe that fails: told once, and the sums agree at every step."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import stripe_double
from stripe_double import Double, Faults

from billing import meter_store, meters
from billing.batches import SAFE
from billing.meter_store import Link
from billing.stripe_api import Catalog, Stripe, open_stripe
from common.db import Pool, transaction

TENANT = UUID(int=1)
NOW = datetime.now(UTC)
HOUR = NOW.replace(minute=0, second=0, microsecond=0)
ONE = timedelta(hours=1)


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    async with stripe_double.serve() as double:
        yield double


@pytest.fixture
async def stripe(double: Double) -> AsyncIterator[Stripe]:
    async with open_stripe("sk_test_1", double.url, timeout=0.3) as stripe:
        yield stripe


@pytest.fixture
async def catalog(stripe: Stripe, pool: Pool) -> Catalog:
    """The tenant is a customer, since long ago."""
    catalog = await stripe.catalog(NOW)
    customer = await stripe.customer(TENANT, "t", "t@example.com", NOW)
    subscription = await stripe.subscription(customer, TENANT, catalog.price_id, NOW)
    link = Link(
        tenant_id=TENANT,
        customer_id=customer,
        subscription_id=subscription.id,
        starts_at=NOW - timedelta(days=300),
        name="t",
        email="t@example.com",
        carried=0,
    )
    async with transaction(pool) as connection:
        await meter_store.add_link(connection, link)
    return catalog


@pytest.fixture
def owe(pool: Pool) -> Callable[..., Any]:
    """Pico-dollars into the outbox, as the ledger does."""

    async def add(*costs: int, hour: datetime = HOUR) -> None:
        async with transaction(pool) as connection:
            await connection.executemany(
                """
                insert into billing.outbox (kind, tenant_id, hour, cost_picousd, requests)
                values ('meter', $1, $2, $3, 1)
                """,
                [(TENANT, hour, cost) for cost in costs],
            )

    return add


@pytest.fixture
def balanced(pool: Pool) -> Callable[[], Any]:
    """All that was ever owed is in the outbox, carried, or counted by a batch; returns what is counted."""

    async def check() -> int:
        row = await pool.fetchrow(
            """
            select (select coalesce(sum(cost_picousd), 0) from billing.outbox) as owed,
                (select coalesce(sum(cost_picousd), 0) from billing.outbox where sent_at is null) as unsent,
                (select coalesce(sum(carried_picousd), 0) from billing.stripe_customers) as carried,
                (select coalesce(sum(counted_microusd), 0) from billing.meter_batches) as counted
            """
        )
        assert row is not None
        assert row["owed"] == row["unsent"] + row["carried"] + row["counted"] * 10**6
        return int(row["counted"])

    return check


@pytest.mark.usefixtures("catalog")
async def test_a_batch_is_sent_until_it_has_arrived_and_counts_once(
    pool: Pool, stripe: Stripe, double: Double, owe: Any, balanced: Any
) -> None:
    await owe(1_500_000, 2_700_000)
    await owe(900_000, hour=HOUR - ONE)
    assert await meters.gather(pool, TENANT, NOW) == 1
    now = NOW
    for fault in ("429", "500", "late", "lost", "cut", "lost"):
        double.faults = Faults(1, "/v1/billing/meter_events", **{f"_{fault}": 1.0})
        assert await meters.send(pool, stripe, now) == (0, 1)
        assert await meters.send(pool, stripe, now) == (0, 0), "it is not due yet"
        now += ONE
    double.faults = None
    assert await meters.send(pool, stripe, now) == (1, 0)
    assert await meters.send(pool, stripe, now) == (0, 0)
    assert double.meters.total() == await balanced() == 5
    assert [event.timestamp for event in double.meters.events] == [int(HOUR.timestamp())]


@pytest.mark.usefixtures("catalog")
async def test_what_is_charged_too_much_is_carried(
    pool: Pool, stripe: Stripe, double: Double, owe: Any, balanced: Any
) -> None:
    for costs in ([1_000_000], [-3_000_000], [1_900_000], [1_200_000, 1]):
        await owe(*costs)
        await meters.gather(pool, TENANT, NOW)
        await meters.send(pool, stripe, NOW)
        assert double.meters.total() == await balanced()
    assert double.meters.total() == 1


@pytest.mark.usefixtures("catalog")
async def test_replicas_do_nothing_twice(pool: Pool, stripe: Stripe, double: Double, owe: Any, balanced: Any) -> None:
    double.faults = Faults(7, "/v1/billing/meter_events", _429=0.1, _500=0.1, cut=0.1)
    for step in range(30):
        await owe(1_234_567, hour=HOUR - step * ONE)
        await asyncio.gather(*(meters.gather(pool, TENANT, NOW) for _ in range(3)))
    now = NOW
    while double.meters.total() < await balanced() or await _waiting(pool):
        await asyncio.gather(*(meters.send(pool, stripe, now) for _ in range(3)))
        now += timedelta(minutes=30)
        assert now < NOW + SAFE
    assert double.meters.total() == await balanced() == 37
    assert all(double.faults.met.values())


async def _waiting(pool: Pool) -> bool:
    return bool(await pool.fetchval("select count(*) from billing.meter_batches where state = 'ready'"))


@pytest.mark.usefixtures("catalog")
async def test_two_senders_never_have_the_same_batch(pool: Pool, owe: Any) -> None:
    for step in range(10):
        await owe(2_000_000, hour=HOUR - step * ONE)
    await meters.gather(pool, TENANT, NOW)

    async def claim(now: datetime) -> set[int]:
        async with transaction(pool) as connection:
            found = await meter_store.claim(connection, now, until=now + meters.CLAIM, tried_since=now - SAFE, limit=6)
        return {batch.id for batch in found}

    first, second = await asyncio.gather(claim(NOW), claim(NOW))
    assert len(first | second) == len(first) + len(second) == 10
    assert await claim(NOW + meters.CLAIM / 2) == set()
    # a process that dies holds nobody up for longer than its claim
    assert len(await claim(NOW + meters.CLAIM)) == 6


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_day_later_stripes_sum_says_whether_it_arrived(
    pool: Pool, stripe: Stripe, double: Double, catalog: Catalog, owe: Any, balanced: Any, arrived: bool
) -> None:
    await owe(7_000_000)
    await meters.gather(pool, TENANT, NOW)
    await meters.send(pool, stripe, NOW)
    await owe(5_000_000)
    await meters.gather(pool, TENANT, NOW)
    double.faults = Faults(1, "/v1/billing/meter_events", **{"cut" if arrived else "late": 1.0})
    assert await meters.send(pool, stripe, NOW) == (0, 1)
    double.faults = None
    day = NOW + timedelta(hours=25)
    double.ahead = 25 * 3600  # Stripe knows the identifier no more: sent again it would count again
    assert await meters.send(pool, stripe, day) == (0, 0)
    assert double.meters.total() == (12 if arrived else 7)
    assert await meters.resolve(pool, stripe, catalog.meter_id, day) == 1
    assert await meters.resolve(pool, stripe, catalog.meter_id, day) == 0
    await meters.send(pool, stripe, day)
    assert double.meters.total() == await balanced() == 12


async def test_nothing_is_concluded_while_sums_are_behind(
    pool: Pool, stripe: Stripe, double: Double, catalog: Catalog, owe: Any, balanced: Any
) -> None:
    await owe(7_000_000)
    await meters.gather(pool, TENANT, NOW)
    double.faults = Faults(1, "/v1/billing/meter_events", cut=1.0)
    await meters.send(pool, stripe, NOW)
    double.faults = None
    await meters.send(pool, stripe, NOW + ONE / 2)
    await owe(5_000_000)
    await meters.gather(pool, TENANT, NOW)
    double.faults = Faults(1, "/v1/billing/meter_events", cut=1.0)
    await meters.send(pool, stripe, NOW)
    double.faults = None
    double.ahead = 25 * 3600
    double.meters.delay = 100 * 3600
    day = NOW + timedelta(hours=25)
    assert await meters.resolve(pool, stripe, catalog.meter_id, day) == 0, "Stripe's sum lacks what was accepted"
    double.meters.delay = 0
    assert await meters.resolve(pool, stripe, catalog.meter_id, day) == 1
    assert double.meters.total() == await balanced() == 12


@pytest.mark.usefixtures("catalog")
async def test_a_batch_that_waited_for_weeks_is_dated_anew_before_its_first_try(
    pool: Pool, stripe: Stripe, double: Double, owe: Any, balanced: Any
) -> None:
    await owe(3_000_000)
    await meters.gather(pool, TENANT, NOW)
    later = NOW + timedelta(days=60)
    double.ahead = timedelta(days=60).total_seconds()
    assert await meters.send(pool, stripe, later) == (1, 0)
    assert double.meters.total() == await balanced() == 3


@pytest.mark.usefixtures("catalog")
async def test_what_stripe_refuses_is_kept_and_tried_later(
    pool: Pool, stripe: Stripe, double: Double, owe: Any, balanced: Any
) -> None:
    await owe(3_000_000)
    await meters.gather(pool, TENANT, NOW)
    customer = double.of("customer").popitem()
    assert await meters.send(pool, stripe, NOW) == (0, 1)
    assert await meters.send(pool, stripe, NOW + meters.REFUSED / 2) == (0, 0)
    double.of("customer").update([customer])
    assert await meters.send(pool, stripe, NOW + meters.REFUSED) == (1, 0)
    assert double.meters.total() == await balanced() == 3


@pytest.mark.usefixtures("catalog")
@pytest.mark.parametrize(("plan", "told"), [("prepaid", True), ("free", False), ("committed", False)])
async def test_what_a_meter_cannot_express_it_is_not_told(pool: Pool, owe: Any, plan: str, told: bool) -> None:
    await owe(1_500_000)
    async with transaction(pool) as connection:
        assert await meter_store.owing(connection) == [TENANT]
        units = 1 if plan == "committed" else 0
        await connection.execute(
            "insert into billing.assignments values ($1, $2, $3, $4, $5, now(), 'test')",
            UUID(int=2), TENANT, plan, units, HOUR,
        )  # fmt: skip
        assert await meter_store.owing(connection) == [TENANT] * told
        late = await meter_store.backlog(connection, datetime.now(UTC) + ONE)
        assert (late.seconds > 0) == told
