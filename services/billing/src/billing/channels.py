"""The writes of channels: what a tenant's people, or the settings for the operators, want to be told, and where."""

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid5

from billing import notice_store, reachable, signature
from billing.notice import Topic
from billing.notice_store import Channel, ChannelKind
from common.db import Pool, transaction
from common.errors import InvalidRequest, NotFound
from common.ids import new_id

MOST = 20
"""Channels of one tenant."""
ADDRESS = re.compile(r"\A[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+\Z")
OPERATORS = UUID("6e0b2a52-7d3b-4c5e-9a53-0d9c1f7a8b11")
"""Names the operators' channels."""


async def add(
    pool: Pool,
    tenant_id: UUID,
    kind: ChannelKind,
    target: str,
    topics: Sequence[Topic],
    by: str,
    *,
    mails: bool,
    loopback: bool,
) -> Channel:
    """Raises InvalidRequest naming what is wrong."""
    if kind == "email":
        if not mails:
            raise InvalidRequest("this installation sends no e-mail", param="kind")
        if len(target) > 254 or not ADDRESS.match(target):
            raise InvalidRequest("target is not an e-mail address", param="target")
    else:
        reachable.check(kind, target, loopback=loopback)
    channel = Channel(
        id=new_id(),
        tenant_id=tenant_id,
        kind=kind,
        target=target,
        secret=signature.secret(secrets.token_bytes(32)) if kind == "webhook" else None,
        topics=tuple(topics),
        created_at=datetime.now(UTC),
        created_by=by,
    )
    async with transaction(pool) as connection:
        if len(await notice_store.channels(connection, tenant_id)) >= MOST:
            raise InvalidRequest(f"a tenant has at most {MOST} channels")
        await notice_store.put_channel(connection, channel)
    return channel


async def one(pool: Pool, tenant_id: UUID, id: UUID) -> Channel:
    """Raises NotFound."""
    async with transaction(pool) as connection:
        found = [channel for channel in await notice_store.channels(connection, tenant_id) if channel.id == id]
    if not found:
        raise NotFound(f"no channel {id}", param="id")
    return found[0]


async def keep_operators(pool: Pool, email: str | None, webhook: tuple[str, str] | None, slack: str | None) -> None:
    """The operators' channels are those that the settings name, and no others. `webhook` is URL and secret."""
    wanted: dict[ChannelKind, tuple[str, str | None] | None] = {
        "email": (email, None) if email else None,
        "webhook": webhook,
        "slack": (slack, None) if slack else None,
    }
    async with transaction(pool) as connection:
        for kind, target in wanted.items():
            id = uuid5(OPERATORS, kind)
            if target is None:
                await notice_store.delete_channel(connection, id)
                continue
            channel = Channel(
                id=id,
                tenant_id=None,
                kind=kind,
                target=target[0],
                secret=target[1],
                topics=(),
                created_at=datetime.now(UTC),
                created_by="settings",
            )
            await notice_store.put_channel(connection, channel)
