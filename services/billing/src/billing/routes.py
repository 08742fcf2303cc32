"""`rpc.billing`: prices, usage and parked events. Any replica answers."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from billing import money, prices, store, views
from billing.accounts import Accounts
from billing.pricing import ANY_PLAN, Book, PlanOrAny
from billing.queries import grouping, hours, moment
from billing.senders import Senders
from billing.till import Till
from billing.views import By
from common import dead_letters
from common.bus import Bus
from common.db import Pool, transaction
from common.dead_letters import DeadLetter
from common.errors import InvalidRequest, NotFound
from common.ids import new_id
from common.rpc import Call, Router, fitting

LAST_ID = UUID(int=2**128 - 1)
MOST_ROWS = 10_000
"""Of usage: no answer has room for more."""


class Admin(msgspec.Struct, frozen=True):
    """What the routes work with."""

    pool: Pool
    bus: Bus
    accounts: Accounts
    senders: Senders
    till: Till = Till()


class NewPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
    input_usd_per_million: Decimal
    output_usd_per_million: Decimal
    cached_input_usd_per_million: Decimal | None = None
    """As input where it is not given."""
    region: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")] = ""
    plan: PlanOrAny = ANY_PLAN
    """For tenants on this plan only."""
    effective_from: str | None = None


class PricesQuery(msgspec.Struct, frozen=True):
    model: str | None = None


class UsageQuery(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    tenant_id: UUID | None = None
    api_key_id: UUID | None = None
    since: str | None = None
    until: str | None = None
    group_by: str = ""


class KeyQuery(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    api_key_id: UUID
    since: str | None = None
    until: str | None = None


class RecordsQuery(msgspec.Struct, frozen=True):
    tenant_id: UUID | None = None
    api_key_id: UUID | None = None
    cursor: UUID = LAST_ID
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class LettersQuery(msgspec.Struct, frozen=True):
    cursor: Annotated[int, Meta(ge=0, le=2**62)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Prices(msgspec.Struct, frozen=True):
    prices: list[views.Priced]


class Records(msgspec.Struct, frozen=True):
    records: Sequence[views.Record]
    next_cursor: UUID | None


class Letters(msgspec.Struct, frozen=True):
    dead_letters: list[DeadLetter]
    next_cursor: str | None


router: Router[Admin] = Router()


@router.route("PUT", "/admin/prices")
async def put_price(admin: Admin, call: Call) -> views.Priced:
    asked = call.parse(NewPrice)
    fresh = money.price(asked.input_usd_per_million, "input_usd_per_million")
    cached = asked.cached_input_usd_per_million
    price = await prices.put(
        admin.pool,
        id=new_id(),
        model=asked.model,
        region=asked.region,
        input=fresh,
        cached_input=fresh if cached is None else money.price(cached, "cached_input_usd_per_million"),
        output=money.price(asked.output_usd_per_million, "output_usd_per_million"),
        effective_from=None if asked.effective_from is None else moment(asked.effective_from, "effective_from"),
        created_by=call.actor,
        plan=asked.plan,
    )
    admin.accounts.reprice()
    return (await _priced(admin, price.model, price.id))[0]


@router.route("GET", "/admin/prices")
async def get_prices(admin: Admin, call: Call) -> Prices:
    return Prices(await _priced(admin, call.parse_query(PricesQuery).model))


@router.route("GET", "/admin/usage")
async def get_usage(admin: Admin, call: Call) -> views.Usage:
    asked = call.parse_query(UsageQuery)
    since, until = hours(asked.since, asked.until)
    group_by = grouping(asked.group_by)
    return await _usage(
        admin, tenant_id=asked.tenant_id, api_key_id=asked.api_key_id, since=since, until=until, group_by=group_by
    )


@router.route("GET", "/v1/usage")
async def get_own_usage(admin: Admin, call: Call) -> views.Usage:
    """The gateway names the key that it has authenticated."""
    asked = call.parse_query(KeyQuery)
    since, until = hours(asked.since, asked.until)
    return await _usage(
        admin, tenant_id=None, api_key_id=asked.api_key_id, since=since, until=until, group_by={"day", "model"}
    )


@router.route("GET", "/admin/usage/records")
async def get_records(admin: Admin, call: Call) -> Records:
    asked = call.parse_query(RecordsQuery)
    async with transaction(admin.pool) as connection:
        entries = await store.records(
            connection,
            tenant_id=asked.tenant_id,
            api_key_id=asked.api_key_id,
            before=asked.cursor,
            limit=asked.limit,
        )
    records = fitting([views.record(entry) for entry in entries])
    more = len(entries) == asked.limit or len(records) < len(entries)
    return Records(records, records[-1].id if more else None)


@router.route("GET", "/admin/dead-letters")
async def get_dead_letters(admin: Admin, call: Call) -> Letters:
    asked = call.parse_query(LettersQuery)
    letters = await dead_letters.page(admin.bus, asked.cursor, asked.limit)
    more = bool(letters) and bool(await dead_letters.page(admin.bus, letters[-1].id, 1))
    return Letters(letters, str(letters[-1].id) if more else None)


@router.route("GET", "/admin/dead-letters/{id}")
async def get_dead_letter(admin: Admin, call: Call, id: str) -> DeadLetter:
    return await dead_letters.get(admin.bus, _sequence(id))


@router.route("POST", "/admin/dead-letters/{id}/replay")
async def replay_dead_letter(admin: Admin, call: Call, id: str) -> DeadLetter:
    return await dead_letters.replay(admin.bus, _sequence(id))


def _sequence(id: str) -> int:
    if not (id.isascii() and id.isdigit() and len(id) < 19):
        raise NotFound("there is no such parked event", param="id")
    return int(id)


async def _usage(
    admin: Admin,
    *,
    tenant_id: UUID | None,
    api_key_id: UUID | None,
    since: datetime | None,
    until: datetime | None,
    group_by: set[By],
) -> views.Usage:
    """Raises InvalidRequest when there is more than an answer holds: a part of it would not sum to its total."""
    async with transaction(admin.pool) as connection:
        groups = await store.sums(
            connection,
            tenant_id=tenant_id,
            api_key_id=api_key_id,
            since=since,
            until=until,
            group_by=group_by,
            limit=MOST_ROWS + 1,
        )
    usage = views.usage(groups)
    if len(groups) > MOST_ROWS or len(fitting(usage.rows)) < len(groups):
        raise InvalidRequest(
            "the answer is too large: narrow it with from and to, tenant_id or api_key_id, or group by less",
            param="group_by",
        )
    return usage


async def _priced(admin: Admin, model: str | None, id: UUID | None = None) -> list[views.Priced]:
    async with transaction(admin.pool) as connection:
        now = await store.now(connection)
        known = await store.prices(connection, None if model is None else [model])
    book = Book(known)
    return [views.priced(price, book, now) for price in known if id is None or price.id == id]
