"""Events of other services that somebody wants to be told of, to notices."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from billing import notice_store
from billing.notice import Fact, Notice
from common.bus import Bus
from common.consumer import Consumer, Rejected
from common.db import Pool, transaction
from common.events import AuditRecorded, LaunchFailed, NodeLost

STALE = timedelta(days=1)
"""Events older than this were told, or are of no use: a stream that is read anew tells nobody again."""


async def run(bus: Bus, pool: Pool, stopping: asyncio.Event) -> None:
    def consumer(stream: str, durable: str, subject: str, read: Callable[[bytes], Notice | None]) -> Consumer:
        async def handle(bodies: Sequence[bytes]) -> None:
            notices: list[Notice] = []
            reasons: dict[int, str] = {}
            for index, body in enumerate(bodies):
                try:
                    notices += filter(None, [read(body)])
                except (msgspec.ValidationError, msgspec.DecodeError) as error:
                    reasons[index] = f"not an event of {subject}: {error}"
            if reasons:
                raise Rejected(reasons)
            async with transaction(pool) as connection:
                await notice_store.tell(connection, notices)

        return Consumer(bus, stream=stream, durable=durable, subject=subject, handle=handle, batch=100)

    consumers = (
        consumer("AUDIT", "billing-keys", "audit.recorded.v1", lambda body: of_audit(body, datetime.now(UTC))),
        consumer("FLEET", "billing-lost", "node.lost.v1", lambda body: of_node(body, datetime.now(UTC))),
        consumer("FLEET", "billing-launches", "launch.failed.v1", lambda body: of_launch(body, datetime.now(UTC))),
    )
    async with asyncio.TaskGroup() as tasks:
        for one in consumers:
            tasks.create_task(one.run(stopping))


def of_audit(body: bytes, now: datetime) -> Notice | None:
    """Of a key that was created or revoked, else None. Raises msgspec's errors."""
    event = msgspec.json.decode(body, type=AuditRecorded)
    verb, _, path = event.action.partition(" ")
    if event.status not in (200, 201, 204) or event.tenant_id is None or now - event.time > STALE:
        return None
    facts: dict[str, Fact] = {"actor": event.actor, "key_id": event.target}
    if verb == "POST" and path.endswith(("/api-keys", "/rotate")) and "/api-keys" in path:
        return Notice(topic="key.created", key=f"key:{event.id}", tenant_id=event.tenant_id, facts=facts)
    if verb == "DELETE" and "/api-keys/" in path:
        return Notice(topic="key.revoked", key=f"key:{event.id}", tenant_id=event.tenant_id, facts=facts)
    return None


def of_node(body: bytes, now: datetime) -> Notice | None:
    """One an hour of each node, which may come and go. Raises msgspec's errors."""
    event = msgspec.json.decode(body, type=NodeLost)
    if now - event.time > STALE:
        return None
    facts: dict[str, Fact] = {"node_id": event.node_id, "reason": event.reason}
    return Notice(topic="node.lost", key=f"node.lost:{event.node_id}:{_hour(event.time)}", tenant_id=None, facts=facts)


def of_launch(body: bytes, now: datetime) -> Notice | None:
    """One an hour of each deployment and kind of failure: it is tried again and again. Raises msgspec's errors."""
    event = msgspec.json.decode(body, type=LaunchFailed)
    if now - event.time > STALE:
        return None
    facts: dict[str, Fact] = {
        "deployment_id": str(event.deployment_id),
        "launch_id": str(event.launch_id),
        "model": event.model,
        "cluster": event.cluster,
        "accelerator": event.accelerator,
        "region": event.region,
        "failure": event.failure,
        "reason": event.reason,
    }
    key = f"launch.failed:{event.deployment_id}:{event.failure}:{_hour(event.time)}"
    return Notice(topic="launch.failed", key=key, tenant_id=None, facts=facts)


def _hour(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H}"
