"""What may be done to API keys: one transaction each with its audit entry, then announced to all gateways."""

import secrets
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, TypeAlias
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from common.bus import Bus
from common.db import Connection, Pool, transaction
from common.errors import Conflict, InvalidRequest, NotFound
from common.ids import new_id
from gateway import keys
from gateway.announcing import announce
from gateway.audit import Author, entry
from gateway.changes import changed
from gateway.store import api_keys
from gateway.store import audit as log_of
from gateway.store.api_keys import ALL_SCOPES, ApiKey, Scope
from gateway.store.tenants import Limit
from gateway.tenants import DEFAULT_ENVIRONMENT, Name, locked

Models: TypeAlias = Annotated[tuple[Name, ...], Meta(max_length=1000)]
Scopes: TypeAlias = Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=3)]
Time: TypeAlias = Annotated[datetime, Meta(tz=True)]


class NewKeyOfTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Name
    environment: str = DEFAULT_ENVIRONMENT
    """An environment's name or id."""
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_concurrency: Limit | None = None
    models: Models | None = None
    budget_usd: Decimal | None = None
    expires_at: Time | None = None
    scopes: Scopes = ALL_SCOPES


class NewKey(NewKeyOfTenant, frozen=True, forbid_unknown_fields=True, kw_only=True):
    tenant_id: UUID


class KeyChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is absent stays as it is; null is no limit."""

    name: Name | UnsetType = UNSET
    requests_per_minute: Limit | UnsetType | None = UNSET
    tokens_per_minute: Limit | UnsetType | None = UNSET
    max_concurrency: Limit | UnsetType | None = UNSET
    models: Models | UnsetType | None = UNSET
    budget_usd: Decimal | UnsetType | None = UNSET
    expires_at: Time | UnsetType | None = UNSET
    scopes: Scopes | UnsetType = UNSET


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    overlap_s: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 0
    """Seconds for which the old key works beside the new one."""


class CreatedKey(msgspec.Struct, frozen=True):
    id: UUID
    key: str
    """Shown now and never again."""
    prefix: str


class ApiKeys:
    """`tenant_id`, where it may be given, is whose key it must be. Raises NotFound for keys that are not there."""

    def __init__(self, pool: Pool, bus: Bus) -> None:
        self._pool = pool
        self._bus = bus

    async def create(self, by: Author, tenant_id: UUID, new: NewKeyOfTenant, now: datetime) -> CreatedKey:
        _check(new.budget_usd, new.expires_at, now)
        async with transaction(self._pool) as connection:
            tenant = await locked(connection, tenant_id, "tenant_id")
            named = [e for e in tenant.environments if new.environment in (e.name, str(e.id))]
            if not named:
                raise InvalidRequest("the tenant has no such environment", param="environment")
            wanted = ApiKey(
                id=new_id(),
                tenant_id=tenant_id,
                environment_id=named[0].id,
                name=new.name,
                prefix="",
                requests_per_minute=new.requests_per_minute,
                tokens_per_minute=new.tokens_per_minute,
                max_concurrency=new.max_concurrency,
                models=new.models,
                budget_usd=new.budget_usd,
                expires_at=new.expires_at,
                created_at=now,
                revoked_at=None,
                scopes=new.scopes,
            )
            created, key = await _add(connection, wanted)
            told = entry(by, new_id(), now, target=key.id, tenant_id=tenant_id, status=201, after=key)
            await log_of.append(connection, told)
        return created

    async def of_tenant(self, tenant_id: UUID) -> list[ApiKey]:
        async with transaction(self._pool) as connection:
            return await api_keys.of_tenant(connection, tenant_id)

    async def change(
        self, by: Author, id: UUID, change: KeyChange, now: datetime, tenant_id: UUID | None = None
    ) -> ApiKey:
        budget = None if change.budget_usd is UNSET else change.budget_usd
        _check(budget, None if change.expires_at is UNSET else change.expires_at, now)
        async with transaction(self._pool) as connection:
            before = await _locked(connection, id, tenant_id)
            if before.revoked_at is not None:
                raise Conflict("the key is revoked")
            after = changed(before, change)
            digest = await api_keys.change(connection, after)
            await _tell(connection, by, now, 200, before, after)
        await announce(self._bus, after.tenant_id, [digest], now)
        return after

    async def rotate(
        self, by: Author, id: UUID, rotation: Rotation, now: datetime, tenant_id: UUID | None = None
    ) -> CreatedKey:
        """A new key with the old one's settings; the old one expires after the overlap, or earlier if it would have."""
        end = now + timedelta(seconds=rotation.overlap_s)
        async with transaction(self._pool) as connection:
            before = await _locked(connection, id, tenant_id)
            if before.revoked_at is not None or (before.expires_at is not None and before.expires_at <= now):
                raise Conflict("the key is revoked or has expired: create a new one")
            if before.replaced_by is not None:
                raise Conflict(f"the key was rotated already, to {before.replaced_by}")
            wanted = msgspec.structs.replace(before, id=new_id(), created_at=now, last_used_at=None)
            created, key = await _add(connection, wanted)
            old = msgspec.structs.replace(before, expires_at=min(end, before.expires_at or end), replaced_by=key.id)
            digest = await api_keys.change(connection, old)
            told = entry(by, new_id(), now, target=id, tenant_id=old.tenant_id, status=201, before=before, after=key)
            await log_of.append(connection, told)
        await announce(self._bus, old.tenant_id, [digest], now)
        return created

    async def revoke(self, by: Author, id: UUID, now: datetime, tenant_id: UUID | None = None) -> None:
        """Revoking twice changes nothing."""
        async with transaction(self._pool) as connection:
            before = await _locked(connection, id, tenant_id)
            after = msgspec.structs.replace(before, revoked_at=before.revoked_at or now)
            digest = await api_keys.change(connection, after)
            await _tell(connection, by, now, 204, before, after)
        await announce(self._bus, after.tenant_id, [digest], now)


async def _locked(connection: Connection, id: UUID, tenant_id: UUID | None) -> ApiKey:
    found = await api_keys.lock(connection, id)
    if found is None or tenant_id not in (None, found.tenant_id):
        raise NotFound(f"no key {id}", param="id")
    return found


async def _add(connection: Connection, wanted: ApiKey) -> tuple[CreatedKey, ApiKey]:
    secret = keys.make(secrets.token_bytes(27))
    key = msgspec.structs.replace(wanted, prefix=keys.prefix(secret))
    await api_keys.add(connection, key, keys.digest(secret))
    return CreatedKey(key.id, secret, key.prefix), key


async def _tell(connection: Connection, by: Author, now: datetime, status: int, before: ApiKey, after: ApiKey) -> None:
    told = entry(
        by, new_id(), now, target=after.id, tenant_id=after.tenant_id, status=status, before=before, after=after
    )
    await log_of.append(connection, told)


def _check(budget_usd: Decimal | None, expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest("it would have expired already", param="expires_at")
    if budget_usd is not None and not (budget_usd.is_finite() and 0 <= budget_usd < 10**12):
        raise InvalidRequest("expected an amount of dollars, 0 or more", param="budget_usd")
