"""`/admin/*` as far as the gateway owns it: tenants, environments, members, API keys, operators, audit."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import delete, get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter, QueryParameter

from gateway.api_keys import ApiKeys, CreatedKey, KeyChange, NewKey, Rotation
from gateway.audit import Author
from gateway.journal import Journal, Page, Verdict
from gateway.members import MemberChange, Members, NewMember
from gateway.operators import CreatedOperator, NewOperator, Operators
from gateway.store.api_keys import ApiKey
from gateway.store.members import Member
from gateway.store.operators import Operator
from gateway.store.tenants import Environment, Tenant
from gateway.tenants import EnvironmentChange, NewEnvironment, NewTenant, TenantChange, Tenants


class TenantList(msgspec.Struct, frozen=True):
    tenants: list[Tenant]


class KeyList(msgspec.Struct, frozen=True):
    api_keys: list[ApiKey]


class MemberList(msgspec.Struct, frozen=True):
    members: list[Member]


class OperatorList(msgspec.Struct, frozen=True):
    operators: list[Operator]


def of_tenants(tenants: Tenants) -> list[HTTPRouteHandler]:
    @post("/tenants", status_code=201)
    async def create_tenant(author: Author, data: NewTenant) -> Tenant:
        return await tenants.create(author, data, datetime.now(UTC))

    @get("/tenants")
    async def list_tenants() -> TenantList:
        return TenantList(await tenants.all())

    @get("/tenants/{tenant_id:uuid}")
    async def tenant(tenant_id: UUID) -> Tenant:
        return await tenants.one(tenant_id)

    @patch("/tenants/{tenant_id:uuid}")
    async def change_tenant(author: Author, tenant_id: UUID, data: TenantChange) -> Tenant:
        return await tenants.change(author, tenant_id, data, datetime.now(UTC))

    @post("/tenants/{tenant_id:uuid}/environments", status_code=201)
    async def create_environment(author: Author, tenant_id: UUID, data: NewEnvironment) -> Environment:
        return await tenants.create_environment(author, tenant_id, data, datetime.now(UTC))

    @patch("/tenants/{tenant_id:uuid}/environments/{environment_id:uuid}")
    async def change_environment(
        author: Author, tenant_id: UUID, environment_id: UUID, data: EnvironmentChange
    ) -> Environment:
        return await tenants.change_environment(author, tenant_id, environment_id, data, datetime.now(UTC))

    return [create_tenant, list_tenants, tenant, change_tenant, create_environment, change_environment]


def of_members(members: Members) -> list[HTTPRouteHandler]:
    @post("/tenants/{tenant_id:uuid}/members", status_code=201)
    async def add_member(author: Author, tenant_id: UUID, data: NewMember) -> Member:
        return await members.add(author, tenant_id, data, datetime.now(UTC))

    @get("/tenants/{tenant_id:uuid}/members")
    async def list_members(tenant_id: UUID) -> MemberList:
        return MemberList(await members.of_tenant(tenant_id))

    @patch("/tenants/{tenant_id:uuid}/members/{member_id:uuid}")
    async def change_member(author: Author, tenant_id: UUID, member_id: UUID, data: MemberChange) -> Member:
        return await members.change(author, tenant_id, member_id, data, datetime.now(UTC))

    @delete("/tenants/{tenant_id:uuid}/members/{member_id:uuid}")
    async def remove_member(author: Author, tenant_id: UUID, member_id: UUID) -> None:
        await members.remove(author, tenant_id, member_id, datetime.now(UTC))

    return [add_member, list_members, change_member, remove_member]


def of_keys(api_keys: ApiKeys) -> list[HTTPRouteHandler]:
    @post("/api-keys", status_code=201)
    async def create_key(author: Author, data: NewKey) -> CreatedKey:
        return await api_keys.create(author, data.tenant_id, data, datetime.now(UTC))

    @get("/api-keys")
    async def list_keys(tenant: Annotated[UUID, QueryParameter(name="tenant_id")]) -> KeyList:
        return KeyList(await api_keys.of_tenant(tenant))

    @patch("/api-keys/{key_id:uuid}")
    async def change_key(author: Author, key_id: UUID, data: KeyChange) -> ApiKey:
        return await api_keys.change(author, key_id, data, datetime.now(UTC))

    @post("/api-keys/{key_id:uuid}/rotate", status_code=201)
    async def rotate_key(author: Author, key_id: UUID, data: Rotation | None = None) -> CreatedKey:
        return await api_keys.rotate(author, key_id, data or Rotation(), datetime.now(UTC))

    @delete("/api-keys/{key_id:uuid}")
    async def revoke_key(author: Author, key_id: UUID) -> None:
        await api_keys.revoke(author, key_id, datetime.now(UTC))

    return [create_key, list_keys, change_key, rotate_key, revoke_key]


def of_operators(operators: Operators) -> list[HTTPRouteHandler]:
    @post("/operators", status_code=201)
    async def create_operator(author: Author, data: NewOperator) -> CreatedOperator:
        return await operators.create(author, data, datetime.now(UTC))

    @get("/operators")
    async def list_operators() -> OperatorList:
        return OperatorList(await operators.all())

    @delete("/operators/{operator_id:uuid}")
    async def revoke_operator(author: Author, operator_id: UUID) -> None:
        await operators.revoke(author, operator_id, datetime.now(UTC))

    return [create_operator, list_operators, revoke_operator]


def of_audit(journal: Journal) -> list[HTTPRouteHandler]:
    @get("/audit")
    async def audit(
        tenant_id: UUID | None = None,
        actor: Annotated[str | None, Parameter(pattern=r"\A[^\x00-\x1f\x7f]*\Z", max_length=500)] = None,
        cursor: Annotated[int | None, Parameter(ge=1, le=2**63 - 1)] = None,
        limit: Annotated[int, Parameter(ge=1, le=1000)] = 100,
    ) -> Page:
        """The newest first; `cursor` is the one that the page before told."""
        return await journal.page(tenant_id, actor, cursor, limit)

    @get("/audit/verify")
    async def verify() -> Verdict:
        """Reads the whole log."""
        return await journal.verify()

    return [audit, verify]
