"""What gateways are told of money: each tenant's account and the price book, again whenever they change."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

from billing import account_store, alerts, notice_store, plan_store, store
from billing.account_store import Sheet
from billing.entitlement import hour_of, in_force
from billing.pricing import Price
from common.budgets import BUDGETS, PRICE_LIST, PRICES, Account, Budget, PlanFrom, PriceList, Recorded
from common.budgets import Price as Told
from common.bus import Bus, encode
from common.db import Connection, Pool, transaction
from common.errors import Unavailable
from common.events import BudgetChanged
from common.ids import new_id
from common.plans import REFUSING

log = logging.getLogger(__name__)

INTERVAL = 0.25
CLOCKS = timedelta(seconds=2)
"""By how much the database's clock, by which accounts are made up, may be behind this one."""
SUPERSEDED = timedelta(days=1)
"""How long a price is still told once another is in force: longer than a request lasts."""


def account(tenant_id: UUID, sheet: Sheet) -> Account:
    budgets: list[Budget] = []
    if sheet.monthly is not None:
        budgets.append(Budget(name="tenant", limit=sheet.monthly, spent=sum(sheet.keys.values()), hard=sheet.hard))
    plan = in_force(sheet.terms, sheet.now).plan
    if plan in REFUSING:
        left = sheet.statement.free_left + sheet.statement.credit_left
        budgets.append(Budget(name="credit", limit=sheet.spent + left, spent=sheet.spent, hard=True))
    later = (terms for terms in sheet.terms if terms.effective_from > sheet.now)
    return Account(
        tenant_id=tenant_id,
        version=sheet.version,
        month=f"{sheet.now.astimezone(UTC):%Y-%m}",
        budgets=tuple(budgets),
        keys=sheet.keys,
        plan=plan,
        later=tuple(PlanFrom(terms.plan, terms.effective_from) for terms in later),
    )


def told(prices: Iterable[Price], now: datetime) -> PriceList:
    """Prices that a request which runs may have begun with, and those to come; `prices` in order of time."""
    found: list[Told] = []
    following: dict[tuple[str, str, str], datetime] = {}
    for price in reversed(list(prices)):
        of = (price.model, price.region, price.plan)
        ended = following.get(of)
        following[of] = price.effective_from
        if ended is None or ended > now - SUPERSEDED:
            found.append(
                Told(
                    model=price.model,
                    region=price.region,
                    plan=price.plan,
                    input=price.input,
                    cached_input=price.cached_input,
                    output=price.output,
                    effective_from=price.effective_from,
                )
            )
    return PriceList(tuple(reversed(found)))


class Accounts:
    def __init__(self, pool: Pool, bus: Bus) -> None:
        self._pool = pool
        self._bus = bus
        self._changed: set[UUID] = set()
        self._prices_changed = True
        self._hour: datetime | None = None
        self._hurry = asyncio.Event()

    def touch(self, tenants: Iterable[UUID]) -> None:
        """Their accounts are told again soon, once for however many changes."""
        self._changed.update(tenants)

    def change(self, tenant_id: UUID) -> None:
        """Its budget or credit is another: told at once."""
        self._changed.add(tenant_id)
        self._hurry.set()

    def reprice(self) -> None:
        self._prices_changed = True
        self._hurry.set()

    def turn(self) -> None:
        """A plan is another: everybody is told."""
        self._hour = None
        self._hurry.set()

    async def recorded(
        self, tenant_id: UUID, ids: Sequence[UUID], key_budgets: Mapping[UUID, int] | None = None
    ) -> Recorded:
        async with transaction(self._pool) as connection:
            if key_budgets and await account_store.put_key_budgets(connection, tenant_id, key_budgets):
                self._changed.add(tenant_id)  # there may be something to alert of
            sheet = await account_store.sheet(connection, tenant_id, ids)
        return Recorded(account(tenant_id, sheet), tuple(sheet.recorded))

    async def publish(self) -> None:
        """Run for as long as the service: what is not told yet is told later, also after a crash."""
        while True:
            try:
                await self._publish_once(datetime.now(UTC))
            except Unavailable as error:
                log.warning("accounts are not told: %s", error)
                await asyncio.sleep(INTERVAL)
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._hurry.wait()
            self._hurry.clear()

    async def _publish_once(self, now: datetime) -> None:
        if self._prices_changed:
            self._prices_changed = False
            try:
                await self._publish_prices()
            except Unavailable:
                self._prices_changed = True
                raise
        hour = hour_of(now - CLOCKS)
        if hour != self._hour:
            async with transaction(self._pool) as connection:
                self.touch(await self._turning(connection, hour))
            self._hour = hour
        while self._changed:
            tenant = self._changed.pop()
            try:
                await self._publish_account(tenant)
            except Unavailable:
                self._changed.add(tenant)
                raise

    async def _turning(self, connection: Connection, hour: datetime) -> list[UUID]:
        """Whose allowance, credits or plan are others with this hour; at boot everybody, too, since a process that was
        killed has not told all."""
        if self._hour is not None and hour.day != 1:
            found = await plan_store.turning(connection, self._hour, hour)
            if found is not None:
                return found
        return await account_store.spenders(connection)

    async def _publish_account(self, tenant_id: UUID) -> None:
        async with transaction(self._pool) as connection:
            sheet = await account_store.sheet(connection, tenant_id, ())
            await notice_store.tell(connection, alerts.due(tenant_id, sheet))
            # inside: no other replica can put an older version over this one
            await self._bus.put(BUDGETS, str(tenant_id), encode(account(tenant_id, sheet)))
        event = BudgetChanged(id=new_id(), time=sheet.now, tenant_id=tenant_id, version=sheet.version)
        await self._bus.tell("budget.changed.v1", encode(event))

    async def _publish_prices(self) -> None:
        async with transaction(self._pool) as connection:
            await store.own_prices(connection)
            listed = told(await store.prices(connection, None), await store.now(connection))
            await self._bus.put(PRICES, PRICE_LIST, encode(listed))
