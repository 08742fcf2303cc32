"""People of a tenant, by e-mail address in lower case."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from common.db import Connection
from gateway.roles import Role


class Member(msgspec.Struct, frozen=True):
    id: UUID
    tenant_id: UUID
    email: str
    role: Role
    created_at: datetime


class Membership(msgspec.Struct, frozen=True):
    tenant_id: UUID
    tenant: str
    status: Literal["active", "suspended"]
    role: Role


async def add(connection: Connection, member: Member) -> bool:
    """False when the tenant has one of that address."""
    status = await connection.execute(
        """
        insert into gateway.members (id, tenant_id, email, role, created_at) values ($1, $2, $3, $4, $5)
        on conflict (tenant_id, email) do nothing
        """,
        member.id,
        member.tenant_id,
        member.email,
        member.role,
        member.created_at,
    )
    return status.endswith(" 1")


async def of_tenant(connection: Connection, tenant_id: UUID) -> list[Member]:
    rows = await connection.fetch(
        "select id, tenant_id, email, role, created_at from gateway.members where tenant_id = $1 order by id", tenant_id
    )
    return [msgspec.convert(dict(row), Member) for row in rows]


async def change(connection: Connection, member: Member) -> None:
    await connection.execute("update gateway.members set role = $2 where id = $1", member.id, member.role)


async def remove(connection: Connection, id: UUID) -> None:
    await connection.execute("delete from gateway.members where id = $1", id)


async def of_person(connection: Connection, email: str) -> list[Membership]:
    rows = await connection.fetch(
        """
        select m.tenant_id, t.name as tenant, t.status, m.role
        from gateway.members m join gateway.tenants t on t.id = m.tenant_id
        where m.email = $1 order by m.tenant_id
        """,
        email,
    )
    return [msgspec.convert(dict(row), Membership) for row in rows]
