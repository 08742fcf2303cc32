"""What may be done to tenants and their environments: one transaction each, with its entry in the audit log."""

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from common.budgets import Account
from common.bus import Bus, encode
from common.db import Connection, Pool, transaction
from common.errors import Conflict, NotFound, Unavailable
from common.events import TenantChanged
from common.ids import new_id
from common.money import usd
from common.plans import DEFAULT, Plan
from common.tenants import Profile
from gateway.announcing import announce
from gateway.audit import Author, entry
from gateway.budget import Budgets
from gateway.changes import changed
from gateway.owed import BudgetChange, Owed
from gateway.store import api_keys, tenants
from gateway.store import audit as log_of
from gateway.store.tenants import BudgetOf, Environment, Limits, Priority, Reason, Tenant

Name: TypeAlias = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]+\Z", max_length=200)]
Email: TypeAlias = Annotated[str, Meta(pattern=r"\A[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+\Z", max_length=320)]
Region: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-z0-9-]{0,64}\Z")]
Weight: TypeAlias = Annotated[float, Meta(ge=0.01, le=100)]
DEFAULT_ENVIRONMENT = "production"


class NewTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    email: Email
    plan: Plan = DEFAULT


class TenantChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is absent stays as it is; `limits` are replaced as a whole."""

    status: Literal["active", "suspended"] | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    email: Email | UnsetType = UNSET
    plan: Plan | UnsetType = UNSET
    """From this hour on, or from the first one that is not charged by another plan's prices."""
    limits: Limits | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    """The class in which its requests wait where nodes are full: a higher one comes sooner."""
    weight: Weight | UnsetType = UNSET
    """Its share beside other tenants of that class."""
    budget: BudgetChange | UnsetType | None = UNSET
    """None removes it."""


class NewEnvironment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,62}\Z")]
    region: Region = ""


class EnvironmentChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    region: Region | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET


class Tenants:
    """Every method raises NotFound for a tenant or environment that is not there."""

    def __init__(self, pool: Pool, bus: Bus, owed: Owed, budgets: Budgets) -> None:
        self._pool = pool
        self._bus = bus
        self._owed = owed
        self._budgets = budgets

    async def create(self, by: Author, new: NewTenant, now: datetime) -> Tenant:
        id = new_id()
        if new.plan != DEFAULT:  # first: of a tenant that then is not made, a plan is no harm
            await self._owed.put_plan(by, id, new.plan)
        async with transaction(self._pool) as connection:
            await tenants.add(connection, id, new.name, new.email, new.plan)
            await tenants.add_environment(connection, new_id(), id, DEFAULT_ENVIRONMENT, "")
            created = (await tenants.read(connection, id))[0]
            told = entry(by, new_id(), now, target=id, tenant_id=id, status=201, after=created)
            await log_of.append(connection, told)
        await self._tell_changed(id, now)
        return created

    async def all(self) -> list[Tenant]:
        async with transaction(self._pool) as connection:
            found = await tenants.read(connection)
        return [_with(tenant, self._budgets.known(tenant.id)) for tenant in found]

    async def one(self, id: UUID) -> Tenant:
        async with transaction(self._pool) as connection:
            found = await tenants.read(connection, id)
        if not found:
            raise NotFound(f"no tenant {id}", param="id")
        return _with(found[0], await self._budgets.account(id))

    async def change(self, by: Author, id: UUID, change: TenantChange, now: datetime) -> Tenant:
        """Billing's part first: who got no answer asks again, and it is done once."""
        ours = change.plan is UNSET and change.budget is UNSET
        if not ours:
            await self.one(id)
        if change.plan is not UNSET:
            await self._owed.put_plan(by, id, change.plan)
        if change.budget is not UNSET:
            await self._owed.put_budget(by, id, change.budget or BudgetChange(None))
        own = msgspec.structs.replace(change, budget=UNSET)
        async with transaction(self._pool) as connection:
            before = await locked(connection, id)
            after = changed(before, own)
            if change.status == "active":  # an admin's word goes for every reason
                after = _suspended(after, ())
            elif change.status == "suspended":
                after = _suspended(after, {*before.suspended_for, "admin"})
            await tenants.change(connection, after)
            hashes = await api_keys.hashes(connection, id)
            told = entry(by, new_id(), now, target=id, tenant_id=id, status=200, before=before, after=[after, change])
            await log_of.append(connection, told)
        await announce(self._bus, id, hashes, now)
        await self._tell_changed(id, now)
        return _with(after, self._budgets.known(id) if ours else await self._budgets.account(id))

    async def stand(self, by: Author, id: UUID, *, paid: bool, now: datetime) -> Tenant:
        """Suspend it for non-payment, or lift that and no other reason. Done already changes nothing."""
        async with transaction(self._pool) as connection:
            before = await locked(connection, id)
            others = {reason for reason in before.suspended_for if reason != "non_payment"}
            after = _suspended(before, others if paid else {*others, "non_payment"})
            if after == before:
                return before
            await tenants.change(connection, after)
            hashes = await api_keys.hashes(connection, id)
            told = entry(by, new_id(), now, target=id, tenant_id=id, status=200, before=before, after=after)
            await log_of.append(connection, told)
        await announce(self._bus, id, hashes, now)
        return after

    async def page(self, after: UUID, limit: int) -> list[Profile]:
        """Those with an id above `after`, in order of id."""
        async with transaction(self._pool) as connection:
            return await tenants.page(connection, after, limit)

    async def create_environment(self, by: Author, id: UUID, new: NewEnvironment, now: datetime) -> Environment:
        created = Environment(new_id(), new.name, new.region)
        async with transaction(self._pool) as connection:
            await locked(connection, id)
            if not await tenants.add_environment(connection, created.id, id, new.name, new.region):
                raise Conflict(f"there is an environment {new.name} already", param="name")
            told = entry(by, new_id(), now, target=created.id, tenant_id=id, status=201, after=created)
            await log_of.append(connection, told)
        return created

    async def change_environment(
        self, by: Author, tenant_id: UUID, id: UUID, change: EnvironmentChange, now: datetime
    ) -> Environment:
        async with transaction(self._pool) as connection:
            tenant = await locked(connection, tenant_id)
            before = next((e for e in tenant.environments if e.id == id), None)
            if before is None:
                raise NotFound(f"the tenant has no environment {id}", param="id")
            after = changed(before, change)
            await tenants.change_environment(connection, after)
            hashes = await api_keys.hashes(connection, tenant_id)
            told = entry(by, new_id(), now, target=id, tenant_id=tenant_id, status=200, before=before, after=after)
            await log_of.append(connection, told)
        await announce(self._bus, tenant_id, hashes, now)
        return after

    async def _tell_changed(self, id: UUID, now: datetime) -> None:
        """A hint for who keeps something beside the tenant; who misses it finds the tenant when it looks next."""
        with suppress(Unavailable):
            await self._bus.tell("tenant.changed.v1", encode(TenantChanged(id=new_id(), time=now, tenant_id=id)))


def _suspended(tenant: Tenant, reasons: Collection[Reason]) -> Tenant:
    status: Literal["active", "suspended"] = "suspended" if reasons else "active"
    return msgspec.structs.replace(tenant, status=status, suspended_for=tuple(sorted(reasons)))


async def locked(connection: Connection, id: UUID, param: str = "id") -> Tenant:
    """A tenant that nobody else changes until the transaction ends. Raises NotFound."""
    if not await tenants.lock(connection, id):
        raise NotFound(f"no tenant {id}", param=param)
    return (await tenants.read(connection, id))[0]


def _with(tenant: Tenant, account: Account | None) -> Tenant:
    if account is None:
        return tenant
    own = next((budget for budget in account.budgets if budget.name == "tenant"), None)
    budget = BudgetOf(usd(own.limit), own.hard) if own else None
    return msgspec.structs.replace(tenant, plan=account.plan, budget=budget)
