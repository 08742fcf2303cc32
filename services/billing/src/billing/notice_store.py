"""Postgres: channels, notices and their deliveries. Functions take the connection first."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from billing.notice import OPERATORS, Fact, Notice, Topic
from common.db import Connection
from common.ids import new_id

ChannelKind: TypeAlias = Literal["email", "webhook", "slack", "discord"]


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    tenant_id: UUID | None
    kind: ChannelKind
    target: str
    secret: str | None
    topics: tuple[Topic, ...]
    created_at: datetime
    created_by: str
    failing_since: datetime | None = None
    disabled_at: datetime | None = None


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is ours to try until its lease ends."""

    notice_id: UUID
    topic: Topic
    tenant_id: UUID | None
    facts: dict[str, Fact]
    created_at: datetime
    attempts: int
    """With this one."""
    channel: Channel


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    notice_id: UUID
    topic: str
    facts: dict[str, Fact]
    created_at: datetime
    channel_id: UUID
    attempts: int
    due_at: datetime
    sent_at: datetime | None
    failed_at: datetime | None
    last_error: str | None


async def tell(connection: Connection, notices: Sequence[Notice]) -> None:
    """In the transaction in which it happens. Each is on its way once, to every channel that wants it."""
    for notice in notices:
        id = await connection.fetchval(
            """
            insert into billing.notices (id, key, tenant_id, topic, facts) values ($1, $2, $3, $4, $5)
            on conflict (key) do nothing returning id
            """,
            new_id(),
            notice.key,
            notice.tenant_id,
            notice.topic,
            msgspec.json.encode(notice.facts).decode(),
        )
        if id is not None:
            await connection.execute(
                """
                insert into billing.deliveries (notice_id, channel_id)
                select $1, id from billing.channels
                where disabled_at is null and deleted_at is null and (topics = '{}' or $2 = any(topics))
                    and (tenant_id = $3 or (tenant_id is null and $4))
                """,
                id,
                notice.topic,
                notice.tenant_id,
                notice.topic in OPERATORS,
            )


def invoice_key(tenant_id: UUID, month: datetime) -> str:
    return f"invoice:{tenant_id}:{month:%Y-%m}"


async def uninvoiced(connection: Connection, month: datetime, limit: int) -> list[UUID]:
    """Tenants with usage in this month that were not told of its invoice."""
    rows = await connection.fetch(
        """
        select tenant_id from billing.usage_monthly m where month = $1 and not exists (
            select from billing.notices where key = 'invoice:' || m.tenant_id || ':' || $2::text
        )
        group by tenant_id having sum(requests) > 0 order by tenant_id limit $3
        """,
        month,
        f"{month:%Y-%m}",
        limit,
    )
    return [row["tenant_id"] for row in rows]


async def forget(connection: Connection, days: int) -> None:
    """Notices older than that: they have arrived or failed, and the months that their keys name are past."""
    await connection.execute(
        """
        with old as (
            select id from billing.notices where created_at < now() - make_interval(days => $1) limit 10000
        ), gone as (
            delete from billing.deliveries where notice_id in (select id from old) returning notice_id
        )
        delete from billing.notices where id in (select id from old)
        """,
        days,
    )


async def test(connection: Connection, channel: Channel, by: str) -> UUID:
    """A notice to this channel alone."""
    id = new_id()
    await connection.execute(
        """
        with told as (
            insert into billing.notices (id, key, tenant_id, topic, facts)
            values ($1, 'test:' || $1::uuid, $2, 'channel.test', $3) returning id
        )
        insert into billing.deliveries (notice_id, channel_id) select id, $4 from told
        """,
        id,
        channel.tenant_id,
        msgspec.json.encode({"actor": by}).decode(),
        channel.id,
    )
    return id


async def put_channel(connection: Connection, channel: Channel) -> None:
    """Of operators' channels, which the settings name, the id stays and the target may change."""
    await connection.execute(
        """
        insert into billing.channels (id, tenant_id, kind, target, secret, topics, created_at, created_by)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (id) do update set target = excluded.target, secret = excluded.secret, deleted_at = null
        """,
        channel.id,
        channel.tenant_id,
        channel.kind,
        channel.target,
        channel.secret,
        list(channel.topics),
        channel.created_at,
        channel.created_by,
    )


async def channels(connection: Connection, tenant_id: UUID | None) -> list[Channel]:
    rows = await connection.fetch(
        """
        select id, tenant_id, kind, target, secret, topics, created_at, created_by, failing_since, disabled_at
        from billing.channels where tenant_id is not distinct from $1 and deleted_at is null order by id
        """,
        tenant_id,
    )
    return [Channel(**{**row, "topics": tuple(row["topics"])}) for row in rows]


async def change_channel(connection: Connection, id: UUID, topics: Sequence[Topic], disabled: bool) -> None:
    await connection.execute(
        """
        update billing.channels set topics = $2, failing_since = null,
            disabled_at = case when $3 then coalesce(disabled_at, now()) end
        where id = $1
        """,
        id,
        list(topics),
        disabled,
    )


async def delete_channel(connection: Connection, id: UUID) -> None:
    await connection.execute(
        "update billing.channels set deleted_at = now(), target = '', secret = null where id = $1", id
    )


async def deliveries(connection: Connection, tenant_id: UUID | None, before: UUID, limit: int) -> list[Delivery]:
    """Of notices with an id below `before`, the newest first; whole notices."""
    rows = await connection.fetch(
        """
        select d.*, n.topic, n.facts, n.created_at from billing.deliveries d
        join billing.notices n on n.id = d.notice_id join billing.channels c on c.id = d.channel_id
        where c.tenant_id is not distinct from $1 and n.id in (
            select id from billing.notices where ($1::uuid is null or tenant_id = $1) and id < $2
            order by id desc limit $3
        )
        order by n.id desc, d.channel_id
        """,
        tenant_id,
        before,
        limit,
    )
    return [Delivery(**{**row, "facts": msgspec.json.decode(row["facts"])}) for row in rows]


async def replay(connection: Connection, tenant_id: UUID | None, notice_id: UUID) -> int:
    """Send a notice again, with its id, to those of these channels that are there; returns how many."""
    status = await connection.execute(
        """
        update billing.deliveries d set attempts = 0, due_at = now(), sent_at = null, failed_at = null
        from billing.channels c
        where c.id = d.channel_id and d.notice_id = $1 and c.tenant_id is not distinct from $2
            and c.deleted_at is null and c.disabled_at is null
        """,
        notice_id,
        tenant_id,
    )
    return int(status.split()[-1])


async def claim(connection: Connection, lease: float, limit: int) -> list[Due]:
    """Deliveries that are due, counted as tried, and nobody else's for `lease` seconds."""
    rows = await connection.fetch(
        """
        with due as (
            select notice_id, channel_id from billing.deliveries
            where sent_at is null and failed_at is null and due_at <= now()
            order by due_at limit $2 for update skip locked
        ), mine as (
            update billing.deliveries d set attempts = attempts + 1, due_at = now() + make_interval(secs => $1)
            from due where d.notice_id = due.notice_id and d.channel_id = due.channel_id
            returning d.*
        )
        select n.id as notice_id, n.topic, n.tenant_id as of_tenant, n.facts, n.created_at as told_at, mine.attempts,
            c.id, c.tenant_id, c.kind, c.target, c.secret, c.topics, c.created_at, c.created_by, c.failing_since,
            c.disabled_at, c.deleted_at
        from mine join billing.notices n on n.id = mine.notice_id join billing.channels c on c.id = mine.channel_id
        """,
        lease,
        limit,
    )
    return [
        Due(
            notice_id=row["notice_id"],
            topic=row["topic"],
            tenant_id=row["of_tenant"],
            facts=msgspec.json.decode(row["facts"]),
            created_at=row["told_at"],
            attempts=row["attempts"],
            channel=Channel(
                id=row["id"],
                tenant_id=row["tenant_id"],
                kind=row["kind"],
                target=row["target"],
                secret=row["secret"],
                topics=tuple(row["topics"]),
                created_at=row["created_at"],
                created_by=row["created_by"],
                failing_since=row["failing_since"],
                disabled_at=row["disabled_at"] or row["deleted_at"],
            ),
        )
        for row in rows
    ]


async def sent(connection: Connection, due: Due) -> None:
    await connection.execute(
        """
        with done as (
            update billing.deliveries set sent_at = now(), last_error = null
            where notice_id = $1 and channel_id = $2
        )
        update billing.channels set failing_since = null where id = $2 and failing_since is not null
        """,
        due.notice_id,
        due.channel.id,
    )


async def failed(connection: Connection, due: Due, reason: str, pause: float | None) -> datetime:
    """Tried again after `pause` seconds, or never; returns since when the channel has been failing."""
    since = await connection.fetchval(
        """
        with done as (
            update billing.deliveries set last_error = $3,
                due_at = now() + make_interval(secs => coalesce($4, 0)),
                failed_at = case when $4::float8 is null then now() end
            where notice_id = $1 and channel_id = $2
        )
        update billing.channels set failing_since = coalesce(failing_since, now()) where id = $2
        returning failing_since
        """,
        due.notice_id,
        due.channel.id,
        reason,
        pause,
    )
    assert isinstance(since, datetime)
    return since


async def disable(connection: Connection, channel_id: UUID) -> bool:
    """False where it was already."""
    status = await connection.execute(
        "update billing.channels set disabled_at = now() where id = $1 and disabled_at is null", channel_id
    )
    return status.endswith(" 1")
