"""Who may call `/admin/*`: the root token, and operators with a name and scopes."""

import hmac
import secrets
from datetime import datetime
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta

from common.db import Pool, transaction
from common.errors import Conflict, InvalidApiKey, InvalidRequest, NotFound
from common.ids import new_id
from gateway import keys
from gateway.admin_token import AdminToken
from gateway.audit import Author, entry
from gateway.scopes import ROOT, Principal
from gateway.store import audit as log_of
from gateway.store import operators
from gateway.store.operators import Operator

Scope: TypeAlias = Literal[
    "*",
    "tenants",
    "keys",
    "prices",
    "usage",
    "nodes",
    "deployments",
    "audit",
    "dead-letters",
    "*:read",
    "tenants:read",
    "keys:read",
    "prices:read",
    "usage:read",
    "nodes:read",
    "deployments:read",
    "audit:read",
    "dead-letters:read",
]


class NewOperator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,62}\Z")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=18)]
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class CreatedOperator(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    token: str
    """Shown now and never again."""
    prefix: str


class Operators:
    def __init__(self, pool: Pool, root: AdminToken) -> None:
        self._pool = pool
        self._root = root

    async def principal(self, token: str, now: datetime) -> Principal:
        """Raises InvalidApiKey; Unavailable for an operator while Postgres is away (the root token needs none)."""
        if self._root.matches(token):
            return ROOT
        wrong = InvalidApiKey("the admin token is missing or wrong", code="invalid_admin_token")
        if not keys.plausible(token, "clo"):
            raise wrong
        digest = keys.digest(token)
        async with transaction(self._pool) as connection:
            found = await operators.find(connection, digest)
        if found is None or not hmac.compare_digest(found[1], digest):
            raise wrong
        operator = found[0]
        if operator.revoked_at is not None or (operator.expires_at is not None and operator.expires_at <= now):
            raise wrong
        return Principal(f"operator:{operator.name}", frozenset(operator.scopes))

    async def create(self, by: Author, new: NewOperator, now: datetime) -> CreatedOperator:
        if new.expires_at is not None and new.expires_at <= now:
            raise InvalidRequest("it would have expired already", param="expires_at")
        token = keys.make(secrets.token_bytes(27), "clo")
        operator = Operator(
            id=new_id(),
            name=new.name,
            prefix=keys.prefix(token),
            scopes=new.scopes,
            created_by=by.actor,
            created_at=now,
            expires_at=new.expires_at,
        )
        async with transaction(self._pool) as connection:
            if not await operators.add(connection, operator, keys.digest(token)):
                raise Conflict(f"there is an operator {new.name} already", param="name")
            told = entry(by, new_id(), now, target=operator.id, tenant_id=None, status=201, after=operator)
            await log_of.append(connection, told)
        return CreatedOperator(operator.id, operator.name, token, operator.prefix)

    async def all(self) -> list[Operator]:
        async with transaction(self._pool) as connection:
            return await operators.read(connection)

    async def revoke(self, by: Author, id: UUID, now: datetime) -> None:
        """Holds from the next call on. Revoking twice changes nothing."""
        async with transaction(self._pool) as connection:
            name = await operators.revoke(connection, id, now)
            if name is None:
                raise NotFound(f"no operator {id}", param="id")
            told = entry(by, new_id(), now, target=id, tenant_id=None, status=204, before=name)
            await log_of.append(connection, told)
