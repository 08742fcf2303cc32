"""Requests to scale, from the stream `FLEET` to what is desired."""

from collections.abc import Sequence

from common.bus import Bus
from common.consumer import Consumer, Rejected
from common.db import Pool, transaction
from common.errors import Unprocessable
from common.events import ScaleRequested
from provisioner import store
from provisioner.metrics import REQUESTS
from provisioner.scale import latest, read


def scale(bus: Bus, pool: Pool) -> Consumer:
    async def handle(bodies: Sequence[bytes]) -> None:
        REQUESTS.inc(await record(pool, _read(bodies)))

    return Consumer(bus, stream="FLEET", durable="provisioner", subject="scale.requested.v1", handle=handle)


async def record(pool: Pool, requests: Sequence[ScaleRequested]) -> int:
    """Keep them, in any order, however often each comes; returns how many were new. Raises Unavailable."""
    async with transaction(pool) as connection:
        added = await store.add_requests(connection, requests)
        await store.desire(connection, latest(requests))
    return added


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
