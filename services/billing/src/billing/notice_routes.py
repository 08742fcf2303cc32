"""`rpc.billing`: a tenant's channels, what was sent to them, and sending it again."""

from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from billing import channels, notice_store
from billing.notice import Topic
from billing.notice_store import Channel, ChannelKind, Delivery
from billing.queries import tenant_of
from billing.routes import LAST_ID, Admin
from common.db import transaction
from common.errors import Conflict, NotFound
from common.rpc import Call, Router, fitting

T = "/admin/tenants/{tenant}/notifications"


class NewChannel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: ChannelKind
    target: Annotated[str, Meta(min_length=1, max_length=2000)]
    topics: Annotated[tuple[Topic, ...], Meta(max_length=20)] = ()
    """None: every topic."""


class ChannelChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    topics: Annotated[tuple[Topic, ...], Meta(max_length=20)] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    kind: ChannelKind
    target: str
    """Of Slack and Discord only the host: the rest is a secret."""
    topics: tuple[Topic, ...]
    enabled: bool
    failing_since: datetime | None
    created_at: datetime
    created_by: str
    secret: str | UnsetType = UNSET
    """Signs webhooks; shown now and never again."""


class Preferences(msgspec.Struct, frozen=True):
    channels: list[Shown]


class PageQuery(msgspec.Struct, frozen=True):
    cursor: UUID = LAST_ID
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class Deliveries(msgspec.Struct, frozen=True):
    deliveries: list[Delivery]
    """The newest first."""
    next_cursor: UUID | None


class Queued(msgspec.Struct, frozen=True):
    notice_id: UUID
    channels: int


def add(router: Router[Admin]) -> None:
    router.route("GET", T)(get_channels)
    router.route("POST", f"{T}/channels", status=201)(post_channel)
    router.route("PATCH", T + "/channels/{channel}")(patch_channel)
    router.route("DELETE", T + "/channels/{channel}")(delete_channel)
    router.route("POST", T + "/channels/{channel}/test", status=202)(test_channel)
    router.route("GET", f"{T}/deliveries")(get_deliveries)
    router.route("POST", T + "/deliveries/{notice}/replay", status=202)(replay)


async def post_channel(admin: Admin, call: Call, tenant: str) -> Shown:
    asked = call.parse(NewChannel)
    channel = await channels.add(
        admin.pool,
        tenant_of(tenant),
        asked.kind,
        asked.target,
        asked.topics,
        call.actor,
        mails=admin.senders.mails,
        loopback=admin.senders.loopback,
    )
    return msgspec.structs.replace(_shown(channel), secret=channel.secret or UNSET)


async def get_channels(admin: Admin, call: Call, tenant: str) -> Preferences:
    async with transaction(admin.pool) as connection:
        found = await notice_store.channels(connection, tenant_of(tenant))
    return Preferences([_shown(channel) for channel in found])


async def patch_channel(admin: Admin, call: Call, tenant: str, channel: str) -> Shown:
    asked = call.parse(ChannelChange)
    known = await channels.one(admin.pool, tenant_of(tenant), _id(channel))
    topics = known.topics if asked.topics is UNSET else asked.topics
    disabled = known.disabled_at is not None if asked.enabled is UNSET else not asked.enabled
    async with transaction(admin.pool) as connection:
        await notice_store.change_channel(connection, known.id, topics, disabled)
    return _shown(await channels.one(admin.pool, tenant_of(tenant), known.id))


async def delete_channel(admin: Admin, call: Call, tenant: str, channel: str) -> Shown:
    known = await channels.one(admin.pool, tenant_of(tenant), _id(channel))
    async with transaction(admin.pool) as connection:
        await notice_store.delete_channel(connection, known.id)
    return _shown(known)


async def test_channel(admin: Admin, call: Call, tenant: str, channel: str) -> Queued:
    known = await channels.one(admin.pool, tenant_of(tenant), _id(channel))
    if known.disabled_at is not None:
        raise Conflict("the channel is switched off")
    async with transaction(admin.pool) as connection:
        return Queued(await notice_store.test(connection, known, call.actor), 1)


async def get_deliveries(admin: Admin, call: Call, tenant: str) -> Deliveries:
    asked = call.parse_query(PageQuery)
    async with transaction(admin.pool) as connection:
        found = await notice_store.deliveries(connection, tenant_of(tenant), asked.cursor, asked.limit)
    shown = list(fitting(found))
    return Deliveries(shown, shown[-1].notice_id if shown else None)


async def replay(admin: Admin, call: Call, tenant: str, notice: str) -> Queued:
    """To every channel that it went to and that is there."""
    async with transaction(admin.pool) as connection:
        count = await notice_store.replay(connection, tenant_of(tenant), _id(notice))
    if not count:
        raise NotFound("there is no such notice, or no channel left for it", param="id")
    return Queued(_id(notice), count)


def _shown(channel: Channel) -> Shown:
    secret = channel.kind in ("slack", "discord")
    return Shown(
        id=channel.id,
        kind=channel.kind,
        target=f"https://{urlsplit(channel.target).hostname}/…" if secret else channel.target,
        topics=channel.topics,
        enabled=channel.disabled_at is None,
        failing_since=channel.failing_since,
        created_at=channel.created_at,
        created_by=channel.created_by,
    )


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"there is no {text}", param="id") from None
