"""Whom a key stands for and what limits it, in one query: the only read of the request path."""

import msgspec

from common.db import Connection
from gateway.live import Caller, Layer
from gateway.store.tenants import Limits


async def find(connection: Connection, digest: bytes) -> Caller | None:
    row = await connection.fetchrow(
        """
        select k.id, k.tenant_id, k.environment_id, e.region, k.models, k.scopes, k.expires_at, t.status,
               t.priority, t.weight, t.limits as tenant_limits, e.limits as environment_limits,
               k.requests_per_minute, k.tokens_per_minute, k.max_concurrency, k.budget_usd
        from gateway.api_keys k
        join gateway.tenants t on t.id = k.tenant_id
        join gateway.environments e on e.id = k.environment_id
        where k.hash = $1 and k.revoked_at is null
        """,
        digest,
    )
    if row is None:
        return None
    tenant = msgspec.json.decode(row["tenant_limits"], type=Limits)
    environment = msgspec.json.decode(row["environment_limits"], type=Limits)
    key = Limits(row["requests_per_minute"], row["tokens_per_minute"], row["max_concurrency"])
    layers = (
        Layer("tenant", str(row["tenant_id"]), *msgspec.structs.astuple(tenant)),
        Layer("environment", str(row["environment_id"]), *msgspec.structs.astuple(environment)),
        Layer("key", str(row["id"]), *msgspec.structs.astuple(key)),
    )
    return Caller(
        budget=None if row["budget_usd"] is None else int(row["budget_usd"] * 10**12),
        api_key_id=row["id"],
        tenant_id=row["tenant_id"],
        environment_id=row["environment_id"],
        region=row["region"],
        models=None if row["models"] is None else frozenset(row["models"]),
        scopes=frozenset(row["scopes"]),
        expires_at=row["expires_at"],
        suspended=row["status"] == "suspended",
        priority=row["priority"],
        weight=row["weight"],
        limits=tuple(
            layer
            for layer, limits in zip(layers, (tenant, environment, key), strict=True)
            if any(limit is not None for limit in msgspec.structs.astuple(limits))
        ),
    )
