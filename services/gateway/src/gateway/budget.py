"""What each tenant may spend: billing's accounts as followed from NATS, and the hand-over of what requests have spent.

While a request runs, Redis holds the most that it may cost; once it has ended, what it has cost, until billing's sums
include it. `keep` brings those sums and the ids that they include to Redis together, whichever gateway does it first.
"""

import asyncio
import logging
import time
from datetime import datetime
from uuid import UUID

import msgspec
from prometheus_client import Counter, Gauge

from common.budgets import BUDGETS, RECORDED, Account, Asked, Recorded
from common.bus import Bus
from common.errors import Unavailable
from common.ids import new_id
from common.plans import DEFAULT, Plan
from common.rpc import Call, forward
from gateway.leases import Hold, Leases
from gateway.live import Caller
from gateway.prices import rounded_down, rounded_up

log = logging.getLogger(__name__)

HELD = Gauge("gateway_budget_held_micro_usd", "What running requests hold, of the tenants that this gateway has served")
FAILURES = Counter("gateway_budget_record_failures", "Attempts to bring billing's sums to Redis that failed")

INTERVAL = 0.25
SWEEP = 20
"""Intervals between two looks at every tenant that may hold something."""
IDLE = 60.0
"""Seconds after which a tenant that holds nothing is looked at no more."""
BATCH = 5000
FORGOTTEN_MS = 24 * 3_600_000
"""A record that billing has not got after this time is parked: it is counted when an operator replays it."""


def sums(account: Account) -> list[tuple[str, int]]:
    """What has been spent of each budget, as Redis names them, in micro-dollars."""
    own = [(budget.name, rounded_up(max(budget.spent, 0))) for budget in account.budgets]
    return [*own, *((f"key:{key}", rounded_up(max(spent, 0))) for key, spent in account.keys.items())]


def hold(account: Account | None, caller: Caller, cost: int) -> Hold | None:
    """`cost` is the most in pico-dollars. None: no hard budget applies."""
    budgets: list[tuple[str, int, int]] = [
        (budget.name, rounded_up(max(budget.spent, 0)), rounded_down(max(budget.limit, 0)))
        for budget in (account.budgets if account else ())
        if budget.hard
    ]
    if caller.budget is not None:
        spent = account.keys.get(caller.api_key_id, 0) if account else 0
        budgets.append((f"key:{caller.api_key_id}", rounded_up(max(spent, 0)), rounded_down(caller.budget)))
    if not budgets:
        return None
    version = account.version if account else 0
    return Hold(str(caller.tenant_id), str(caller.api_key_id), rounded_up(cost), version, tuple(budgets))


class Budgets:
    def __init__(self, leases: Leases, bus: Bus) -> None:
        self._leases = leases
        self._bus = bus
        self._accounts: dict[UUID, Account] = {}
        self._changed: set[UUID] = set()
        self._holding: dict[UUID, float] = {}
        """Tenants whose requests held something lately, and when."""
        self._of_keys: dict[UUID, dict[UUID, int]] = {}
        """Of these tenants: budgets of keys that billing has not been told of."""
        self.loaded = asyncio.Event()
        """All accounts that there were at boot are known."""

    def limits(self, caller: Caller) -> bool:
        """Whether a hard budget applies, so that a request must hold what it may cost."""
        account = self._accounts.get(caller.tenant_id)
        return caller.budget is not None or (account is not None and any(budget.hard for budget in account.budgets))

    def plan(self, tenant_id: UUID, now: datetime) -> Plan:
        account = self._accounts.get(tenant_id)
        if account is None:
            return DEFAULT
        return next((p.plan for p in reversed(account.later) if p.effective_from <= now), account.plan)

    def known(self, tenant_id: UUID) -> Account | None:
        """As told last; None: nothing special was ever told of it."""
        return self._accounts.get(tenant_id)

    async def account(self, tenant_id: UUID) -> Account | None:
        """As billing has it now; as told last while billing is away."""
        try:
            account = (await self._ask(Asked(tenant_id, ()))).account
        except Unavailable:
            return self.known(tenant_id)
        self._replace(account)
        return account

    def hold(self, caller: Caller, cost: int) -> Hold | None:
        held = hold(self._accounts.get(caller.tenant_id), caller, cost)
        if held is not None:
            self._holding[caller.tenant_id] = time.monotonic()
            if caller.budget is not None:
                self._of_keys.setdefault(caller.tenant_id, {})[caller.api_key_id] = caller.budget
        return held

    async def follow(self) -> None:
        while True:
            try:
                async for value in self._bus.follow(BUDGETS, ">", self.loaded):
                    self._replace(msgspec.json.decode(value, type=Account))
            except (Unavailable, msgspec.MsgspecError) as error:
                log.warning("budgets are not followed: %s", error)
            await asyncio.sleep(1)

    def _replace(self, account: Account) -> None:
        known = self._accounts.get(account.tenant_id)
        if known is None or known.version < account.version:
            self._accounts[account.tenant_id] = account
            if account.budgets or account.tenant_id in self._holding:
                self._changed.add(account.tenant_id)

    async def keep(self) -> None:
        """Bring what billing has recorded to Redis, soon after each change, and now and then without one."""
        beat = 0
        while True:
            await asyncio.sleep(INTERVAL)
            beat += 1
            if beat % SWEEP == 0:
                self._changed |= self._holding.keys()
            due, self._changed = self._changed, set()
            try:
                for tenant in list(due):
                    await self._record(tenant)
                    due.discard(tenant)
                if beat % SWEEP == 0:
                    held = await self._leases.held([str(tenant) for tenant in self._holding])
                    HELD.set(sum(amount for amount, _ in held))
            except Unavailable as error:
                FAILURES.inc()
                log.warning("budgets in redis are not up to date: %s", error)
                self._changed |= due

    async def _record(self, tenant: UUID) -> None:
        scope = str(tenant)
        version, ids = await self._leases.unrecorded(scope)
        account = self._accounts.get(tenant)
        if not ids and (account is None or version >= account.version):
            if time.monotonic() - self._holding.get(tenant, 0.0) > IDLE:
                self._holding.pop(tenant, None)
            return
        for first in range(0, max(len(ids), 1), BATCH):
            batch = ids[first : first + BATCH]
            told = dict(self._of_keys.get(tenant, {}))
            recorded = await self._ask(Asked(tenant, tuple(UUID(id) for id in batch), told))
            self._forget(tenant, told)
            known = {str(id) for id in recorded.ids}
            done = [id for id in batch if id in known or _age_ms(UUID(id)) > FORGOTTEN_MS]
            await self._leases.record(scope, recorded.account.version, sums(recorded.account), done)
            self._replace(recorded.account)

    def _forget(self, tenant: UUID, told: dict[UUID, int]) -> None:
        left = {key: budget for key, budget in self._of_keys.get(tenant, {}).items() if told.get(key) != budget}
        if left:
            self._of_keys[tenant] = left
        else:
            self._of_keys.pop(tenant, None)

    async def _ask(self, asked: Asked) -> Recorded:
        call = Call(
            method="POST",
            path=RECORDED,
            body=msgspec.Raw(msgspec.json.encode(asked)),
            actor="gateway",
            request_id=str(new_id()),
        )
        reply = await forward(self._bus, "billing", call)
        if reply.status != 200:
            raise Unavailable(f"billing answered {reply.status}")
        return msgspec.json.decode(reply.body, type=Recorded)


def _age_ms(id: UUID) -> float:
    """Of a UUIDv7."""
    return time.time() * 1000 - (id.int >> 80)
