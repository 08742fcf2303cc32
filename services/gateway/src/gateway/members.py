"""What may be done to the people of a tenant: one transaction each, with its entry in the audit log."""

from datetime import datetime
from uuid import UUID

import msgspec

from common.db import Connection, Pool, transaction
from common.errors import Conflict, Forbidden, NotFound
from common.ids import new_id
from gateway.audit import Author, entry
from gateway.roles import Role
from gateway.store import audit as log_of
from gateway.store import members
from gateway.store.members import Member, Membership
from gateway.tenants import Email, locked


class NewMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    email: Email
    role: Role


class MemberChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Role


class Members:
    """`role` is that of the member who acts, None for operators: only owners and operators make or unmake owners.

    Raises NotFound for a tenant or member that is not there, Conflict where a tenant would lose its last owner by
    one of its own.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, by: Author, tenant_id: UUID, new: NewMember, now: datetime, role: Role | None = None) -> Member:
        _check(role, new.role)
        member = Member(new_id(), tenant_id, new.email.lower(), new.role, now)
        async with transaction(self._pool) as connection:
            await locked(connection, tenant_id)
            if not await members.add(connection, member):
                raise Conflict("there is a member of that address already", param="email")
            told = entry(by, new_id(), now, target=member.id, tenant_id=tenant_id, status=201, after=member)
            await log_of.append(connection, told)
        return member

    async def of_tenant(self, tenant_id: UUID) -> list[Member]:
        async with transaction(self._pool) as connection:
            return await members.of_tenant(connection, tenant_id)

    async def change(
        self, by: Author, tenant_id: UUID, id: UUID, change: MemberChange, now: datetime, role: Role | None = None
    ) -> Member:
        async with transaction(self._pool) as connection:
            _check(role, change.role)
            before = await _before(connection, tenant_id, id, role, keeps=change.role == "owner")
            after = msgspec.structs.replace(before, role=change.role)
            await members.change(connection, after)
            told = entry(by, new_id(), now, target=id, tenant_id=tenant_id, status=200, before=before, after=after)
            await log_of.append(connection, told)
        return after

    async def remove(self, by: Author, tenant_id: UUID, id: UUID, now: datetime, role: Role | None = None) -> None:
        async with transaction(self._pool) as connection:
            before = await _before(connection, tenant_id, id, role, keeps=False)
            await members.remove(connection, id)
            told = entry(by, new_id(), now, target=id, tenant_id=tenant_id, status=204, before=before)
            await log_of.append(connection, told)

    async def of_person(self, email: str) -> list[Membership]:
        """Where somebody is a member; `email` in any case."""
        async with transaction(self._pool) as connection:
            return await members.of_person(connection, email.lower())


async def _before(connection: Connection, tenant_id: UUID, id: UUID, role: Role | None, *, keeps: bool) -> Member:
    await locked(connection, tenant_id)
    all = await members.of_tenant(connection, tenant_id)
    found = next((member for member in all if member.id == id), None)
    if found is None:
        raise NotFound(f"no member {id}", param="id")
    _check(role, found.role)
    owners = [member for member in all if member.role == "owner"]
    if role is not None and not keeps and owners == [found]:
        raise Conflict("a tenant needs an owner: make somebody else one first")
    return found


def _check(role: Role | None, *touched: Role) -> None:
    if role not in (None, "owner") and "owner" in touched:
        raise Forbidden("only owners make or unmake owners")
