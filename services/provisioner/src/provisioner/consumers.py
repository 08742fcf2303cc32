"""Requests to scale, from the stream `FLEET` to what is desired."""

from collections.abc import Awaitable, Callable, Sequence

from common.bus import Bus
from common.consumer import Consumer, Rejected
from common.db import Connection, Pool, transaction
from common.errors import Unprocessable
from common.events import ScaleRequested
from provisioner import deployment_store, store
from provisioner.metrics import REQUESTS
from provisioner.scale import Shared, latest, read, share


def scale(bus: Bus, pool: Pool, changed: Callable[[], Awaitable[None]]) -> Consumer:
    async def handle(bodies: Sequence[bytes]) -> None:
        REQUESTS.inc(await record(pool, _read(bodies)))
        await changed()

    return Consumer(bus, stream="FLEET", durable="provisioner", subject="scale.requested.v1", handle=handle)


async def record(pool: Pool, requests: Sequence[ScaleRequested]) -> int:
    """Keep them, in any order, however often each comes; returns how many were new. Raises Unavailable."""
    async with transaction(pool) as connection:
        added = await store.add_requests(connection, requests)
        for model, replicas in (await store.desire(connection, latest(requests))).items():
            await _apply(connection, model, replicas)
    return added


async def _apply(connection: Connection, model: str, replicas: int) -> None:
    """To the model's deployments, locked so that an admin's change before or after is seen whole."""
    deployments = await deployment_store.of_model(connection, model)
    if not deployments:
        return
    shared = [Shared(one.id, one.spec.weight, one.spec.min_replicas, one.spec.max_replicas) for one in deployments]
    for id, count in share(replicas, shared).items():
        await deployment_store.scale(connection, id, count)


def _read(bodies: Sequence[bytes]) -> list[ScaleRequested]:
    requests: list[ScaleRequested] = []
    reasons: dict[int, str] = {}
    for index, body in enumerate(bodies):
        try:
            requests.append(read(body))
        except Unprocessable as error:
            reasons[index] = str(error)
    if reasons:
        raise Rejected(reasons)
    return requests
