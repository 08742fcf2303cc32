"""Charges usage: prices a batch and writes ledger, rollup and outbox in one transaction, each request once."""

from collections.abc import Sequence
from uuid import UUID

from billing import store
from billing.changes import Change, Entry, by_tenant, hourly
from billing.partition import partitions_of
from billing.precedence import rank, strongest
from billing.pricing import Price, cost, in_force
from common.db import Connection, Pool, transaction
from common.events import UsageRecorded


class Unpriced(Exception):
    """Requests of which nobody has said what they cost: id → reason. Nothing was charged."""

    def __init__(self, reasons: dict[UUID, str]) -> None:
        super().__init__(f"{len(reasons)} requests have no price")
        self.reasons = reasons


async def record(pool: Pool, events: Sequence[UsageRecorded]) -> int:
    """Charge them, in any order, however often each comes; returns how many lines were added or replaced.

    Raises Unpriced when some cannot be charged, Unavailable without the database; then none is.
    """
    held = list(strongest(events).values())
    async with transaction(pool) as connection:
        for partition in partitions_of(event.id for event in held):
            await store.add_partition(connection, partition)
    async with transaction(pool) as connection:
        changes = await _write(connection, await _priced(connection, held))
        if differences := hourly(changes):
            await store.add_to_rollup(connection, differences)
        if owed := by_tenant(differences):
            await store.add_to_outbox(connection, owed)
    return len(changes)


async def _priced(connection: Connection, events: Sequence[UsageRecorded]) -> list[Entry]:
    await store.share_prices(connection)
    known: dict[str, list[Price]] = {}
    for price in await store.prices(connection, {event.model for event in events}):
        known.setdefault(price.model, []).append(price)
    entries: list[Entry] = []
    missing: dict[UUID, str] = {}
    for event in events:
        version = in_force(known.get(event.model, ()), event.model, event.region, event.started_at)
        if version is None:
            where = f" in {event.region}" if event.region else ""
            missing[event.id] = f"no price for model {event.model}{where} in force at {event.started_at.isoformat()}"
        else:
            entries.append(Entry(event, version.id, cost(event, version)))
    if missing:
        raise Unpriced(missing)
    return entries


async def _write(connection: Connection, entries: Sequence[Entry]) -> list[Change]:
    added = await store.insert(connection, entries)
    changes = [Change(None, entry) for entry in entries if entry.event.id in added]
    again = [entry for entry in entries if entry.event.id not in added]
    if again:
        old = await store.lock(connection, [entry.event.id for entry in again])
        better = [entry for entry in again if rank(entry.event) > rank(old[entry.event.id].event)]
        if better:
            await store.replace(connection, better)
        changes += [Change(old[entry.event.id], entry) for entry in better]
    return changes
