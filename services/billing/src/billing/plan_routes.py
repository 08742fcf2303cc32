"""`rpc.billing`: plans, and which tenant is on which."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, cast, get_args

import msgspec
from msgspec import Meta

from billing import money, plan_store, plans, store
from billing.entitlement import Assignment, Version, in_force, timeline
from billing.queries import moment, tenant_of
from billing.routes import Admin
from common.db import transaction
from common.errors import InvalidRequest, NotFound
from common.ids import new_id
from common.plans import Plan
from common.rpc import Call, Router


class NewVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    free_monthly_usd: Decimal = Decimal(0)
    usd_per_unit_hour: Decimal = Decimal(0)
    effective_from: str | None = None


class NewAssignment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    plan: Plan
    units: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    """Reserved tokens a second, of the plan `committed`."""
    effective_from: str | None = None


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    plan: Plan
    free_monthly_usd: str
    usd_per_unit_hour: str
    effective_from: datetime
    created_at: datetime
    created_by: str


class Catalogue(msgspec.Struct, frozen=True):
    plans: list[Offered]
    """All versions, in order of time. A plan without one grants nothing."""
    known: tuple[Plan, ...]


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    plan: Plan
    units: int
    effective_from: datetime
    created_at: datetime
    created_by: str


class OfTenant(msgspec.Struct, frozen=True, kw_only=True):
    plan: Plan
    """In force now."""
    units: int
    history: list[Assigned]
    """In order of time; future ones too."""


def add(router: Router[Admin]) -> None:
    router.route("GET", "/admin/plans")(get_plans)
    router.route("PUT", "/admin/plans/{plan}")(put_plan)
    router.route("GET", "/admin/tenants/{tenant}/plan")(get_tenants_plan)
    router.route("PUT", "/admin/tenants/{tenant}/plan")(put_tenants_plan)


async def get_plans(admin: Admin, call: Call) -> Catalogue:
    async with transaction(admin.pool) as connection:
        versions = await plan_store.versions(connection)
    return Catalogue([_offered(version) for version in versions], get_args(Plan))


async def put_plan(admin: Admin, call: Call, plan: str) -> Offered:
    asked = call.parse(NewVersion)
    version = await plans.put_version(
        admin.pool,
        id=new_id(),
        plan=_known(plan),
        free_monthly=money.amount(asked.free_monthly_usd, "free_monthly_usd"),
        unit_hour=money.amount(asked.usd_per_unit_hour, "usd_per_unit_hour"),
        effective_from=_at(asked.effective_from),
        by=call.actor,
    )
    admin.accounts.turn()
    return _offered(version)


async def get_tenants_plan(admin: Admin, call: Call, tenant: str) -> OfTenant:
    async with transaction(admin.pool) as connection:
        now = await store.now(connection)
        assignments = await plan_store.assignments(connection, [tenant_of(tenant)])
    terms = in_force(timeline(assignments, ()), now)
    return OfTenant(plan=terms.plan, units=terms.units, history=[_assigned(a) for a in assignments])


async def put_tenants_plan(admin: Admin, call: Call, tenant: str) -> Assigned:
    asked = call.parse(NewAssignment)
    id = tenant_of(tenant)
    if (asked.plan == "committed") != (asked.units > 0):
        raise InvalidRequest(
            "units are what `committed` reserves: 1 or more there, and of no other plan", param="units"
        )
    assignment = await plans.assign(
        admin.pool,
        id=new_id(),
        tenant_id=id,
        plan=asked.plan,
        units=asked.units,
        effective_from=_at(asked.effective_from),
        by=call.actor,
    )
    admin.accounts.change(id)
    return _assigned(assignment)


def _offered(version: Version) -> Offered:
    return Offered(
        plan=version.plan,
        free_monthly_usd=money.usd(version.free_monthly),
        usd_per_unit_hour=money.usd(version.unit_hour),
        effective_from=version.effective_from,
        created_at=version.created_at,
        created_by=version.created_by,
    )


def _assigned(assignment: Assignment) -> Assigned:
    return Assigned(
        plan=assignment.plan,
        units=assignment.units,
        effective_from=assignment.effective_from,
        created_at=assignment.created_at,
        created_by=assignment.created_by,
    )


def _known(plan: str) -> Plan:
    try:
        return cast("Plan", msgspec.convert(plan, Plan))
    except msgspec.ValidationError:
        raise NotFound(f"no plan {plan}; known are {', '.join(get_args(Plan))}", param="plan") from None


def _at(text: str | None) -> datetime | None:
    return moment(text, "effective_from") if text else None
