"""`/account/*`: what a signed-in person may do in the tenants that they are a member of, by role.

Every route below a tenant names the permission that it needs; the guard checks it before the handler runs.
"""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, patch, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter

from common.bus import Bus
from common.rpc import Call, Reply, forward
from gateway import csv
from gateway.api_keys import ApiKeys, CreatedKey, KeyChange, NewKeyOfTenant, Rotation
from gateway.audit import Author
from gateway.journal import Journal, Page
from gateway.members import MemberChange, Members, NewMember
from gateway.oidc import Person
from gateway.owed import BudgetChange
from gateway.roles import Role
from gateway.routes.admin import KeyList, MemberList
from gateway.routes.forwarded import passed, passing
from gateway.store.api_keys import ApiKey
from gateway.store.members import Member, Membership
from gateway.store.tenants import Environment, Tenant
from gateway.tenants import EnvironmentChange, NewEnvironment, Tenants

TENANT = "/tenants/{tenant_id:uuid}"
CHANNEL = f"{TENANT}/notifications/channels/{{channel_id:uuid}}"
DELIVERY = f"{TENANT}/notifications/deliveries/{{notice_id:uuid}}"


class Me(msgspec.Struct, frozen=True):
    email: str
    memberships: list[Membership]


class EnvironmentList(msgspec.Struct, frozen=True):
    environments: tuple[Environment, ...]


def of_person(members: Members, tenants: Tenants) -> list[HTTPRouteHandler]:
    @get("/")
    async def me(person: Person) -> Me:
        return Me(person.email, await members.of_person(person.email))

    @get(TENANT, permission="tenant:read")
    async def my_tenant(tenant_id: UUID) -> Tenant:
        return await tenants.one(tenant_id)

    return [me, my_tenant]


def of_keys(api_keys: ApiKeys) -> list[HTTPRouteHandler]:
    @get(f"{TENANT}/api-keys", permission="keys:read")
    async def my_keys(tenant_id: UUID) -> KeyList:
        return KeyList(await api_keys.of_tenant(tenant_id))

    @post(f"{TENANT}/api-keys", status_code=201, permission="keys:write")
    async def create_my_key(author: Author, tenant_id: UUID, data: NewKeyOfTenant) -> CreatedKey:
        return await api_keys.create(author, tenant_id, data, datetime.now(UTC))

    @patch(f"{TENANT}/api-keys/{{key_id:uuid}}", permission="keys:write")
    async def change_my_key(author: Author, tenant_id: UUID, key_id: UUID, data: KeyChange) -> ApiKey:
        return await api_keys.change(author, key_id, data, datetime.now(UTC), tenant_id)

    @post(f"{TENANT}/api-keys/{{key_id:uuid}}/rotate", status_code=201, permission="keys:write")
    async def rotate_my_key(author: Author, tenant_id: UUID, key_id: UUID, data: Rotation | None = None) -> CreatedKey:
        return await api_keys.rotate(author, key_id, data or Rotation(), datetime.now(UTC), tenant_id)

    @delete(f"{TENANT}/api-keys/{{key_id:uuid}}", permission="keys:write")
    async def revoke_my_key(author: Author, tenant_id: UUID, key_id: UUID) -> None:
        await api_keys.revoke(author, key_id, datetime.now(UTC), tenant_id)

    return [my_keys, create_my_key, change_my_key, rotate_my_key, revoke_my_key]


def of_members(members: Members) -> list[HTTPRouteHandler]:
    @get(f"{TENANT}/members", permission="members:read")
    async def my_members(tenant_id: UUID) -> MemberList:
        return MemberList(await members.of_tenant(tenant_id))

    @post(f"{TENANT}/members", status_code=201, permission="members:write")
    async def add_my_member(author: Author, own_role: Role, tenant_id: UUID, data: NewMember) -> Member:
        return await members.add(author, tenant_id, data, datetime.now(UTC), own_role)

    @patch(f"{TENANT}/members/{{member_id:uuid}}", permission="members:write")
    async def change_my_member(
        author: Author, own_role: Role, tenant_id: UUID, member_id: UUID, data: MemberChange
    ) -> Member:
        return await members.change(author, tenant_id, member_id, data, datetime.now(UTC), own_role)

    @delete(f"{TENANT}/members/{{member_id:uuid}}", permission="members:write")
    async def remove_my_member(author: Author, own_role: Role, tenant_id: UUID, member_id: UUID) -> None:
        await members.remove(author, tenant_id, member_id, datetime.now(UTC), own_role)

    return [my_members, add_my_member, change_my_member, remove_my_member]


def of_environments(tenants: Tenants) -> list[HTTPRouteHandler]:
    @get(f"{TENANT}/environments", permission="environments:read")
    async def my_environments(tenant_id: UUID) -> EnvironmentList:
        return EnvironmentList((await tenants.one(tenant_id)).environments)

    @post(f"{TENANT}/environments", status_code=201, permission="environments:write")
    async def create_my_environment(author: Author, tenant_id: UUID, data: NewEnvironment) -> Environment:
        return await tenants.create_environment(author, tenant_id, data, datetime.now(UTC))

    @patch(f"{TENANT}/environments/{{environment_id:uuid}}", permission="environments:write")
    async def change_my_environment(
        author: Author, tenant_id: UUID, environment_id: UUID, data: EnvironmentChange
    ) -> Environment:
        return await tenants.change_environment(author, tenant_id, environment_id, data, datetime.now(UTC))

    return [my_environments, create_my_environment, change_my_environment]


def of_usage(bus: Bus) -> list[HTTPRouteHandler]:
    """Billing answers; which tenant is meant is said here, whatever the query says."""

    async def usage_of(request: Request[Any, Any, Any], author: Author, tenant_id: UUID, path: str) -> Reply:
        query = {**dict(request.query_params), "tenant_id": str(tenant_id)}
        call = Call(method="GET", path=path, query=query, actor=author.actor, request_id=author.request_id)
        return await forward(bus, "billing", call)

    @get(f"{TENANT}/usage", permission="usage:read")
    async def my_usage(request: Request[Any, Any, Any], author: Author, tenant_id: UUID) -> Response[bytes]:
        return passed(await usage_of(request, author, tenant_id, "/admin/usage"))

    @get(f"{TENANT}/usage.csv", permission="usage:read", media_type="text/csv")
    async def my_usage_as_csv(request: Request[Any, Any, Any], author: Author, tenant_id: UUID) -> Response[bytes]:
        """The same rows, for a machine or a spreadsheet."""
        reply = await usage_of(request, author, tenant_id, "/admin/usage")
        if reply.status != 200:
            return passed(reply)
        return Response(csv.usage(bytes(reply.body)), media_type="text/csv")

    @get(f"{TENANT}/usage/records", permission="usage:read")
    async def my_records(request: Request[Any, Any, Any], author: Author, tenant_id: UUID) -> Response[bytes]:
        return passed(await usage_of(request, author, tenant_id, "/admin/usage/records"))

    @get(f"{TENANT}/invoices", permission="billing:read")
    async def my_invoices(request: Request[Any, Any, Any], author: Author, tenant_id: UUID) -> Response[bytes]:
        return passed(await usage_of(request, author, tenant_id, "/admin/invoices"))

    return [my_usage, my_usage_as_csv, my_records, my_invoices]


def of_money(bus: Bus, journal: Journal) -> list[HTTPRouteHandler]:
    """Billing answers what the admin API is answered, of the tenant in the path and no other."""

    async def money_of(
        author: Author, tenant_id: UUID, word: str, method: str = "GET", body: bytes = b""
    ) -> Response[bytes]:
        path = f"/admin/tenants/{tenant_id}/{word}"
        return await passing(bus, journal, author, "billing", tenant_id, method, path, {}, body)

    @get(f"{TENANT}/balance", permission="billing:read")
    async def my_balance(author: Author, tenant_id: UUID) -> Response[bytes]:
        return await money_of(author, tenant_id, "balance")

    @get(f"{TENANT}/credits", permission="billing:read")
    async def my_credits(author: Author, tenant_id: UUID) -> Response[bytes]:
        return await money_of(author, tenant_id, "credits")

    @get(f"{TENANT}/plan", permission="billing:read")
    async def my_plan(author: Author, tenant_id: UUID) -> Response[bytes]:
        return await money_of(author, tenant_id, "plan")

    @put(f"{TENANT}/budget", permission="billing:write")
    async def change_my_budget(author: Author, tenant_id: UUID, data: BudgetChange) -> Response[bytes]:
        body = msgspec.json.encode(data)
        return await money_of(author, tenant_id, "budget", "PUT", body)

    # pages of Stripe's, also for those who are suspended because they have not paid

    @post(f"{TENANT}/checkout", status_code=201, permission="billing:write", while_suspended=True)
    async def my_checkout(request: Request[Any, Any, Any], author: Author, tenant_id: UUID) -> Response[bytes]:
        return await money_of(author, tenant_id, "checkout", "POST", await request.body())

    @post(f"{TENANT}/portal", status_code=201, permission="billing:write", while_suspended=True)
    async def my_portal(request: Request[Any, Any, Any], author: Author, tenant_id: UUID) -> Response[bytes]:
        return await money_of(author, tenant_id, "portal", "POST", await request.body())

    return [my_balance, my_credits, my_plan, change_my_budget, my_checkout, my_portal]


def of_notifications(bus: Bus, journal: Journal) -> list[HTTPRouteHandler]:
    """As `of_money`."""

    async def told(request: Request[Any, Any, Any], author: Author, tenant_id: UUID, rest: str = "") -> Response[bytes]:
        path, query = f"/admin/tenants/{tenant_id}/notifications{rest}", dict(request.query_params)
        body = await request.body()
        return await passing(bus, journal, author, "billing", tenant_id, str(request.method), path, query, body)

    @get(f"{TENANT}/notifications", permission="notifications:read")
    async def my_channels(request: Request[Any, Any, Any], author: Author, tenant_id: UUID) -> Response[bytes]:
        return await told(request, author, tenant_id)

    @post(f"{TENANT}/notifications/channels", status_code=201, permission="notifications:write")
    async def add_my_channel(request: Request[Any, Any, Any], author: Author, tenant_id: UUID) -> Response[bytes]:
        """Takes `kind` (`email`, `webhook`, `slack`, `discord`), `target` and `topics`; a webhook's secret is shown
        once."""
        return await told(request, author, tenant_id, "/channels")

    @patch(CHANNEL, permission="notifications:write")
    async def change_my_channel(
        request: Request[Any, Any, Any], author: Author, tenant_id: UUID, channel_id: UUID
    ) -> Response[bytes]:
        """Takes `topics` and `enabled`."""
        return await told(request, author, tenant_id, f"/channels/{channel_id}")

    @delete(CHANNEL, status_code=200, permission="notifications:write")
    async def remove_my_channel(
        request: Request[Any, Any, Any], author: Author, tenant_id: UUID, channel_id: UUID
    ) -> Response[bytes]:
        return await told(request, author, tenant_id, f"/channels/{channel_id}")

    @post(f"{CHANNEL}/test", status_code=202, permission="notifications:write")
    async def test_my_channel(
        request: Request[Any, Any, Any], author: Author, tenant_id: UUID, channel_id: UUID
    ) -> Response[bytes]:
        return await told(request, author, tenant_id, f"/channels/{channel_id}/test")

    @get(f"{TENANT}/notifications/deliveries", permission="notifications:read")
    async def my_deliveries(request: Request[Any, Any, Any], author: Author, tenant_id: UUID) -> Response[bytes]:
        return await told(request, author, tenant_id, "/deliveries")

    @post(f"{DELIVERY}/replay", status_code=202, permission="notifications:write")
    async def replay_my_notice(
        request: Request[Any, Any, Any], author: Author, tenant_id: UUID, notice_id: UUID
    ) -> Response[bytes]:
        return await told(request, author, tenant_id, f"/deliveries/{notice_id}/replay")

    return [
        my_channels,
        add_my_channel,
        change_my_channel,
        remove_my_channel,
        test_my_channel,
        my_deliveries,
        replay_my_notice,
    ]


def of_audit(journal: Journal) -> list[HTTPRouteHandler]:
    @get(f"{TENANT}/audit", permission="audit:read")
    async def my_audit(
        tenant_id: UUID,
        actor: Annotated[str | None, Parameter(pattern=r"\A[^\x00-\x1f\x7f]*\Z", max_length=500)] = None,
        cursor: Annotated[int | None, Parameter(ge=1, le=2**63 - 1)] = None,
        limit: Annotated[int, Parameter(ge=1, le=1000)] = 100,
    ) -> Page:
        return await journal.page(tenant_id, actor, cursor, limit)

    return [my_audit]
