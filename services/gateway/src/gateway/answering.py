"""`rpc.gateway`: what billing asks of tenants, and its word on who has paid."""

from datetime import UTC, datetime
from uuid import UUID

from common.errors import NotFound
from common.rpc import Call, Router
from common.tenants import PROFILES, STANDING, Page, Profile, Profiles, Standing
from gateway.audit import Author
from gateway.store.tenants import Tenant
from gateway.tenants import Tenants

MOST = 500

router: Router[Tenants] = Router()


@router.route("GET", PROFILES)
async def profiles(tenants: Tenants, call: Call) -> Profiles:
    return Profiles(await tenants.page(call.parse_query(Page).after, MOST))


@router.route("GET", f"{PROFILES}/{{id}}")
async def profile(tenants: Tenants, call: Call, id: str) -> Profile:
    return _profile(await tenants.one(_id(id)))


@router.route("POST", STANDING)
async def stand(tenants: Tenants, call: Call, id: str) -> Profile:
    paid = call.parse(Standing).paid
    by = Author(call.actor, f"POST {STANDING}", "", call.request_id)
    return _profile(await tenants.stand(by, _id(id), paid=paid, now=datetime.now(UTC)))


def _profile(tenant: Tenant) -> Profile:
    return Profile(tenant.id, tenant.name, tenant.email, tenant.plan, tenant.status)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"no tenant {text}", param="id") from None
