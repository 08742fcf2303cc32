"""Charges usage: prices a batch and writes ledger, rollup and outbox in one transaction, each request once."""

from collections.abc import Sequence
from uuid import UUID

from billing import archive_store, invoice_store, ledger_store, plan_store, store
from billing.changes import Change, Entry, by_tenant, hourly, monthly
from billing.entitlement import Assignment, Terms, in_force, timeline
from billing.partition import partitions_of
from billing.precedence import rank, strongest
from billing.pricing import ANY_PLAN, Book, cost
from common import failpoint
from common.db import Connection, Pool, transaction
from common.events import UsageRecorded


class Unpriced(Exception):
    """Records of which nobody has said what they cost: index → reason. Nothing was charged."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(f"{len(reasons)} records have no price")
        self.reasons = reasons


class Archived(Exception):
    """Records of months that are no longer in the ledger: index → reason. Nothing was charged."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(f"{len(reasons)} records are of archived months")
        self.reasons = reasons


async def record(pool: Pool, events: Sequence[UsageRecorded]) -> int:
    """Charge them, in any order, however often each comes; returns how many lines were added or replaced.

    Raises Unpriced or Archived when some cannot be charged, Unavailable without the database; then none is.
    """
    async with transaction(pool) as connection:
        if gone := await archive_store.names(connection):
            _check(events, gone)
        for partition in partitions_of(event.id for event in events):
            await store.add_partition(connection, partition)
    failpoint.reached("partitioned")
    async with transaction(pool) as connection:
        entries = _holding(await _priced(connection, events))
        await ledger_store.stage(connection, entries)
        failpoint.reached("staged")
        known = await ledger_store.insert(connection)
        failpoint.reached("inserted")
        if not known:
            await ledger_store.add_staged_to_sums(connection)
            failpoint.reached("summed")
            return len(entries)
        changes = await _changes(connection, entries, known)
        failpoint.reached("replaced")
        if differences := hourly(changes):
            await ledger_store.add_to_rollup(connection, differences)
        if owed := by_tenant(differences):
            await ledger_store.add_to_outbox(connection, owed)
        if months := monthly(changes):
            await invoice_store.add_to_months(connection, months)  # last: many transactions meet at the same rows
        failpoint.reached("resummed")
    return len(changes)


def _check(events: Sequence[UsageRecorded], gone: set[str]) -> None:
    """Charged twice it might be: what was charged of those months cannot be looked up any more."""
    months = {index: partitions_of([event.id])[0].name for index, event in enumerate(events)}
    if reasons := {i: f"{name} is archived" for i, name in months.items() if name in gone}:
        raise Archived(reasons)


async def _priced(connection: Connection, events: Sequence[UsageRecorded]) -> list[Entry]:
    await store.share_prices(connection)
    book = Book(await store.prices(connection, {event.model for event in events}))
    plans = await _plans(connection, events) if book.by_plan else {}
    entries: list[Entry] = []
    missing: dict[int, str] = {}
    for index, event in enumerate(events):
        plan = in_force(plans[event.tenant_id], event.started_at).plan if book.by_plan else ANY_PLAN
        version = book.in_force(event.model, event.region, event.started_at, plan)
        if version is None:
            where = f" in {event.region}" if event.region else ""
            missing[index] = f"no price for model {event.model}{where} in force at {event.started_at.isoformat()}"
        else:
            entries.append(Entry(event, version.id, cost(event, version)))
    if missing:
        raise Unpriced(missing)
    return entries


async def _plans(connection: Connection, events: Sequence[UsageRecorded]) -> dict[UUID, list[Terms]]:
    tenants = {event.tenant_id for event in events}
    assigned: dict[UUID, list[Assignment]] = {tenant: [] for tenant in tenants}
    for assignment in await plan_store.assignments(connection, tenants):
        assigned[assignment.tenant_id].append(assignment)
    return {tenant: timeline(own, ()) for tenant, own in assigned.items()}


def _holding(entries: Sequence[Entry]) -> list[Entry]:
    """One of each id, in order of id. Chosen once all have a price: a record that waits for one must not keep a weaker
    one from being charged that would have been charged in a batch before it."""
    held = strongest(entry.event for entry in entries)
    lines = {entry.event.id: entry for entry in entries if entry.event is held[entry.event.id]}
    return [lines[id] for id in held]


async def _changes(connection: Connection, entries: Sequence[Entry], known: set[UUID]) -> list[Change]:
    """Those that were inserted, and of the known ones those that are truer, which are written over."""
    changes = [Change(None, entry) for entry in entries if entry.event.id not in known]
    again = [entry for entry in entries if entry.event.id in known]
    old = await ledger_store.lock(connection, [entry.event.id for entry in again])
    better = [entry for entry in again if rank(entry.event) > rank(old[entry.event.id].event)]
    if better:
        await ledger_store.replace(connection, better)
    return changes + [Change(old[entry.event.id], entry) for entry in better]
