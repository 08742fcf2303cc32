"""What an admin does to tenants and keys, each one transaction, each announced to all gateways once committed."""

import secrets
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from common.bus import Bus, encode
from common.db import Pool, transaction
from common.errors import Conflict, InvalidRequest, NotFound
from common.events import KeyChanged
from common.ids import new_id
from gateway import keys, store
from gateway.store import ApiKey, Environment, Limit, Limits, Tenant

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
Email: TypeAlias = Annotated[str, Meta(pattern=r"\A[^@\s]+@[^@\s]+\Z", max_length=320)]
Plan: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Region: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-z0-9-]{0,64}\Z")]
S = TypeVar("S", bound=msgspec.Struct)
DEFAULT_ENVIRONMENT = "production"


class NewTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    email: Email
    plan: Plan = "pay_as_you_go"


class TenantChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is absent stays as it is; `limits` are replaced as a whole."""

    status: Literal["active", "suspended"] | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    email: Email | UnsetType = UNSET
    plan: Plan | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET


class EnvironmentChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    region: Region | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET


class NewEnvironment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,62}\Z")]
    region: Region = ""


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    tenant_id: UUID
    name: Name
    environment: str = DEFAULT_ENVIRONMENT
    """An environment's name or id."""
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_concurrency: Limit | None = None
    models: Annotated[tuple[Name, ...], Meta(max_length=1000)] | None = None
    budget_usd: Annotated[Decimal, Meta()] | None = None
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class CreatedKey(msgspec.Struct, frozen=True):
    id: UUID
    key: str
    """Shown now and never again."""
    prefix: str


class Accounts:
    def __init__(self, pool: Pool, bus: Bus) -> None:
        self._pool = pool
        self._bus = bus

    async def create_tenant(self, new: NewTenant) -> Tenant:
        tenant_id, environment_id = new_id(), new_id()
        async with transaction(self._pool) as connection:
            await store.add_tenant(connection, tenant_id, new.name, new.email, new.plan)
            await store.add_environment(connection, environment_id, tenant_id, DEFAULT_ENVIRONMENT, "")
            return (await store.tenants(connection, tenant_id))[0]

    async def tenants(self) -> list[Tenant]:
        async with transaction(self._pool) as connection:
            return await store.tenants(connection)

    async def tenant(self, id: UUID) -> Tenant:
        async with transaction(self._pool) as connection:
            found = await store.tenants(connection, id)
        if not found:
            raise NotFound(f"no tenant {id}", param="id")
        return found[0]

    async def change_tenant(self, id: UUID, change: TenantChange, now: datetime) -> Tenant:
        async with transaction(self._pool) as connection:
            if not await store.lock_tenant(connection, id):
                raise NotFound(f"no tenant {id}", param="id")
            changed = _changed((await store.tenants(connection, id))[0], change)
            await store.set_tenant(connection, changed)
            hashes = await store.hashes(connection, id)
        await self._announce(id, hashes, now)
        return changed

    async def change_environment(
        self, tenant_id: UUID, id: UUID, change: EnvironmentChange, now: datetime
    ) -> Environment:
        async with transaction(self._pool) as connection:
            if not await store.lock_tenant(connection, tenant_id):
                raise NotFound(f"no tenant {tenant_id}", param="id")
            tenant = (await store.tenants(connection, tenant_id))[0]
            found = next((e for e in tenant.environments if e.id == id), None)
            if found is None:
                raise NotFound(f"the tenant has no environment {id}", param="id")
            changed = _changed(found, change)
            await store.set_environment(connection, changed)
            hashes = await store.hashes(connection, tenant_id)
        await self._announce(tenant_id, hashes, now)
        return changed

    async def create_environment(self, tenant_id: UUID, new: NewEnvironment) -> Environment:
        environment = Environment(new_id(), new.name, new.region)
        async with transaction(self._pool) as connection:
            if not await store.tenants(connection, tenant_id):
                raise NotFound(f"no tenant {tenant_id}", param="id")
            if not await store.add_environment(connection, environment.id, tenant_id, new.name, new.region):
                raise Conflict(f"there is an environment {new.name} already", param="name")
        return environment

    async def create_key(self, new: NewKey, now: datetime) -> CreatedKey:
        if new.expires_at is not None and new.expires_at <= now:
            raise InvalidRequest("it would have expired already", param="expires_at")
        if new.budget_usd is not None and not 0 <= new.budget_usd < 10**12:
            raise InvalidRequest("expected an amount of dollars, 0 or more", param="budget_usd")
        secret = keys.make(secrets.token_bytes(27))
        async with transaction(self._pool) as connection:
            tenants = await store.tenants(connection, new.tenant_id)
            if not tenants:
                raise NotFound(f"no tenant {new.tenant_id}", param="tenant_id")
            named = [e for e in tenants[0].environments if new.environment in (e.name, str(e.id))]
            if not named:
                raise InvalidRequest(f"the tenant has no environment {new.environment}", param="environment")
            key = ApiKey(
                id=new_id(),
                tenant_id=new.tenant_id,
                environment_id=named[0].id,
                name=new.name,
                prefix=keys.prefix(secret),
                requests_per_minute=new.requests_per_minute,
                tokens_per_minute=new.tokens_per_minute,
                max_concurrency=new.max_concurrency,
                models=new.models,
                budget_usd=new.budget_usd,
                expires_at=new.expires_at,
                created_at=now,
                revoked_at=None,
            )
            await store.add_key(connection, key, keys.digest(secret))
        return CreatedKey(key.id, secret, key.prefix)

    async def keys(self, tenant_id: UUID) -> list[ApiKey]:
        async with transaction(self._pool) as connection:
            return await store.api_keys(connection, tenant_id)

    async def revoke_key(self, id: UUID, now: datetime) -> None:
        async with transaction(self._pool) as connection:
            revoked = await store.revoke_key(connection, id, now)
        if revoked is None:
            raise NotFound(f"no key {id}", param="id")
        await self._announce(revoked[0], [revoked[1]], now)

    async def _announce(self, tenant_id: UUID, hashes: list[str], now: datetime) -> None:
        event = KeyChanged(id=new_id(), time=now, tenant_id=tenant_id, hashes=tuple(hashes))
        await self._bus.tell("key.changed.v1", encode(event))


def _changed(known: S, change: msgspec.Struct) -> S:
    """`known` with every field that `change` sets."""
    fields = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
    return msgspec.structs.replace(known, **fields)
