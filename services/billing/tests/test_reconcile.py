"""What does not agree is named by hour, tenant, node and model, and what agrees is not."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import stripe_double
from stripe_double import Double

from billing import ledger, meter_store, meters, reconcile_store
from billing.comparison import Charged, Counted, Tokens, leak, metered, works
from billing.customers import Customers
from billing.meter_store import Link
from billing.reconcile import Reconciler
from billing.stripe_api import open_stripe
from billing.till import Office
from common.bus import Bus
from common.db import Pool, transaction
from common.events import Counters, NodeCounted
from common.ids import new_id

TENANT = UUID(int=1)
NOW = datetime.now(UTC)
HOUR = NOW.replace(minute=0, second=0, microsecond=0)
ONE = timedelta(hours=1)


@pytest.mark.parametrize(
    ("delivered", "stripe", "difference"),
    [
        ((10, 0), 10, None),
        ((10, 0), 13, 3),
        ((10, 0), 7, -3),
        ((10, 0), 0, -10),
        ((0, 0), 4, 4),
        ((10, 5), 10, 0),
        ((10, 5), 15, 0),
        ((10, 5), 16, 1),
        ((10, 5), 9, -1),
    ],
)
def test_an_hour_of_the_meter(delivered: tuple[int, int], stripe: int, difference: int | None) -> None:
    found = metered(TENANT, {HOUR: delivered}, {HOUR: stripe} if stripe else {})
    assert [hour.difference for hour in found] == ([] if difference is None else [difference])


def test_engines_beside_the_ledger() -> None:
    charged = {
        (HOUR, "n1", "m"): Charged(Tokens(100, 50), Tokens(10, 5)),
        (HOUR, "n2", "m"): Charged(Tokens(7, 7), Tokens()),
    }
    counted = {(HOUR, "n1", "m"): Counted(Tokens(100, 52), 0), (HOUR, "n3", "m"): Counted(Tokens(1, 48), 1)}
    found = works(charged, counted)
    assert [(work.node_id, work.difference) for work in found] == [
        ("n1", Tokens(0, 2)),
        ("n2", Tokens(-7, -7)),
        ("n3", Tokens(1, 48)),
    ]
    assert leak(found) == (2 + 48) / 100
    assert leak(works(charged, {})) is None


async def test_counters_are_added_up_and_begin_anew(pool: Pool) -> None:
    at = HOUR - ONE
    # input and output read at these minutes: counting begins with the first; an older or a repeated one adds nothing
    readings = [(0, 1000, 500), (1, 1100, 550), (1, 1100, 550), (0, 9999, 9999), (2, 40, 20), (61, 45, 30)]
    for minute, input, output in readings:
        event = NodeCounted(
            id=new_id(), time=at + timedelta(minutes=minute), node_id="n1", models={"m": Counters(input, output)}
        )
        async with transaction(pool) as connection:
            await reconcile_store.count(connection, event)
    async with transaction(pool) as connection:
        counted = await reconcile_store.counted(connection, at, HOUR + ONE)
    assert counted == {
        (at, "n1", "m"): Counted(Tokens(140, 70), 1),
        (HOUR, "n1", "m"): Counted(Tokens(5, 10), 0),
    }


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    async with stripe_double.serve() as double:
        yield double


async def test_ledger_meter_and_engines_are_compared(
    pool: Pool, client: Bus, double: Double, put_price: Any, record: Any
) -> None:
    await put_price(since=timedelta(hours=30))
    events = [record(node_id="n1", started_at=HOUR - ONE, time=NOW, ended_at=NOW) for _ in range(10)]
    await ledger.record(pool, events)
    async with open_stripe("sk_test_1", double.url, timeout=5) as stripe:
        catalog = await stripe.catalog(NOW)
        customer = await stripe.customer(TENANT, "t", "t@example.com", NOW)
        subscription = await stripe.subscription(customer, TENANT, catalog.price_id, NOW)
        link = Link(
            tenant_id=TENANT,
            customer_id=customer,
            subscription_id=subscription.id,
            starts_at=NOW - timedelta(days=60),
            name="t",
            email="t@example.com",
            carried=0,
        )
        async with transaction(pool) as connection:
            await meter_store.add_link(connection, link)
        reconciler = Reconciler(pool, client, Office(stripe, Customers(pool, client, stripe)))
        before = await reconciler.report(HOUR - 2 * ONE, HOUR + ONE)
        assert (before.agrees, before.books[0].unsent) == (True, before.books[0].ledger)
        await meters.gather(pool, TENANT, NOW)
        await meters.send(pool, stripe, NOW)
        event = NodeCounted(id=new_id(), time=HOUR - ONE, node_id="n1", models={"demo-8b": Counters(0, 0)})
        later = NodeCounted(
            id=new_id(), time=HOUR - ONE / 2, node_id="n1", models={"demo-8b": Counters(10 * 17, 10 * 64 + 6)}
        )
        async with transaction(pool) as connection:
            await reconcile_store.count(connection, event)
            await reconcile_store.count(connection, later)
        good = await reconciler.report(HOUR - 2 * ONE, HOUR + ONE)
        assert (good.agrees, good.meter, good.probes_known) == (True, [], False)
        (work,) = good.engines
        assert (work.node_id, work.model, work.difference) == ("n1", "demo-8b", Tokens(0, 6))
        assert good.leak_ratio == 6 / 646

        await stripe.report("by hand", customer, 250, HOUR - ONE)
        bad = await reconciler.report(HOUR - 2 * ONE, HOUR + ONE)
        assert bad.meter is not None
        assert [(hour.hour, hour.tenant_id, hour.difference) for hour in bad.meter] == [(HOUR - ONE, TENANT, 250)]
        assert not bad.agrees

        night = HOUR + timedelta(days=1)
        first, second = await reconciler.nightly(night), await reconciler.nightly(night)
        assert first is not None
        assert second is None
