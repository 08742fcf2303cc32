"""Ten thousand requests, two billing processes, a Stripe that fails at random: its meter has what the ledger has."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import nats
import stripe_double
from integration.shop import until
from stripe_double import Double, Faults

from common.events import UsageRecorded
from common.ids import new_id
from stack.fixtures import MakeStack

REQUESTS, TENANTS, HOURS = 10_000, 12, 20
MODEL = "demo"


def record(chance: random.Random, tenants: list[UUID], now: datetime) -> UsageRecorded:
    at = now - timedelta(hours=chance.randrange(HOURS), seconds=chance.random())
    tokens = chance.randrange(1, 5000)
    return UsageRecorded(
        id=new_id(),
        time=at,
        tenant_id=chance.choice(tenants),
        environment_id=UUID(int=2),
        api_key_id=UUID(int=3),
        model=MODEL,
        endpoint="chat.completions",
        streamed=True,
        outcome="completed",
        usage_source="engine",
        input_tokens=tokens,
        cached_tokens=tokens // 3,
        output_tokens=chance.randrange(1, 3000),
        started_at=at,
        first_token_at=at,
        ended_at=at,
    )


async def test_the_meter_has_what_the_ledger_has_whatever_stripe_answers(make_stack: MakeStack) -> None:
    chance = random.Random(1)
    async with stripe_double.serve() as double:
        env = {
            "STRIPE_API_KEY": "sk_test_1",
            "STRIPE_API_BASE": double.url,
            "STRIPE_INTERVAL": "0.2",
            "STRIPE_TIMEOUT": "0.5",
        }
        stack = await make_stack(
            services=("billing", "gateway"), simulators=0, replicas={"billing": 2}, service_env=env
        )
        named = [
            await stack.admin("POST", "/admin/tenants", {"name": f"t{n}", "email": f"t{n}@example.com"})
            for n in range(TENANTS)
        ]
        tenants = [UUID(tenant["id"]) for tenant in named]
        price = {
            "model": MODEL,
            "input_usd_per_million": "0.10",
            "cached_input_usd_per_million": "0.013",
            "output_usd_per_million": "0.401",
            "effective_from": (datetime.now(UTC) - timedelta(days=2)).isoformat(),
        }
        await stack.admin("PUT", "/admin/prices", price)

        async def customers() -> int:
            return len(double.of("subscription"))

        await until(customers, lambda count: count > TENANTS, deadline=60)  # the stack has a tenant of its own
        double.faults = Faults(3, "/v1/billing/meter_events", _429=0.08, _500=0.08, lost=0.02, late=0.02, cut=0.05)

        events = [record(chance, tenants, datetime.now(UTC)) for _ in range(REQUESTS)]
        # what the scheduler settles for a gateway that seemed lost may be more or less than what was used
        provisional = [
            msgspec.structs.replace(
                event, outcome="gateway_lost", output_tokens=event.output_tokens + 100 * (n % 3 - 1)
            )
            for n, event in enumerate(events[:500])
            if event.output_tokens > 100
        ]
        connection = await nats.connect(stack.nats_url)
        await send(connection, provisional, ".lost")
        for first in range(0, REQUESTS, 2000):
            await send(connection, events[first : first + 2000])
            await asyncio.sleep(0.2)  # so that hours are told in several parts
        await connection.close()

        postgres = await asyncpg.connect(stack.postgres_dsn)
        try:
            await until(lambda: left(postgres), lambda row: row == (0, 0, 0), deadline=150)
            await agree(postgres, double)

            # a ledger rebuilt from the stream has forgotten what it told: it is not told again
            told = double.meters.total()
            for index in range(2):
                await stack.stop("billing", index)
            await postgres.execute("truncate billing.stripe_customers cascade")
            await postgres.execute("update billing.outbox set sent_at = null")
            for index in range(2):
                await stack.restart("billing", index)
            await until(lambda: left(postgres), lambda row: row == (0, 0, 0), deadline=150)
            await agree(postgres, double)
            assert double.meters.total() == told
        finally:
            await postgres.close()
        assert all(double.faults.met.values()), double.faults.met
        assert len(double.meters.events) > TENANTS * HOURS


async def send(connection: Any, events: list[UsageRecorded], again: str = "") -> None:
    jetstream = connection.jetstream()
    for first in range(0, len(events), 500):
        await asyncio.gather(
            *(
                jetstream.publish(
                    event.subject, msgspec.json.encode(event), headers={"Nats-Msg-Id": f"{event.id}{again}"}
                )
                for event in events[first : first + 500]
            )
        )


async def left(postgres: asyncpg.Connection) -> tuple[int, int, int]:
    """Requests that are not charged, changes that are in no batch, batches that Stripe has not."""
    row = await postgres.fetchrow(
        """
        select $1 - (select count(*) from billing.usage where outcome = 'completed') as uncharged,
            (select count(*) from billing.outbox where sent_at is null) as unsent,
            (select count(*) from billing.meter_batches where state <> 'delivered') as waiting
        """,
        REQUESTS,
    )
    assert row is not None
    return row["uncharged"], row["unsent"], row["waiting"]


async def agree(postgres: asyncpg.Connection, double: Double) -> None:
    """For each tenant, micro-dollars of the meter and what is carried are the ledger to the pico-dollar."""
    rows = await postgres.fetch(
        """
        select customer_id, carried_picousd as carried,
            (select sum(cost_picousd) from billing.usage where tenant_id = customer.tenant_id) as ledger
        from billing.stripe_customers customer
        where exists (select from billing.usage where tenant_id = customer.tenant_id)
        """
    )
    assert len(rows) == TENANTS
    for row in rows:
        assert double.meters.total(row["customer_id"]) * 10**6 + row["carried"] == row["ledger"]
