"""What engines say that they have done, and what the scheduler has had them do for itself."""

from collections.abc import Sequence
from datetime import datetime
from uuid import uuid4

import msgspec

from billing import reconcile_store
from billing.comparison import Place, Tokens
from common.bus import Bus
from common.consumer import Consumer, Rejected
from common.db import Pool, transaction
from common.errors import Unavailable
from common.events import NodeCounted
from common.probed import PROBED, Probes
from common.rpc import Call, forward


def counts(bus: Bus, pool: Pool) -> Consumer:
    async def handle(bodies: Sequence[bytes]) -> None:
        events: list[NodeCounted] = []
        reasons: dict[int, str] = {}
        for index, body in enumerate(bodies):
            try:
                events.append(msgspec.json.decode(body, type=NodeCounted))
            except (msgspec.ValidationError, msgspec.DecodeError) as error:
                reasons[index] = f"no reading of an engine: {error}"
        if reasons:
            raise Rejected(reasons)
        async with transaction(pool) as connection:
            for event in sorted(events, key=lambda event: (event.node_id, event.time)):
                await reconcile_store.count(connection, event)

    return Consumer(bus, stream="FLEET", durable="billing-counts", subject="node.counted.v1", handle=handle, batch=100)


async def probed(bus: Bus, since: datetime, until: datetime) -> dict[Place, Tokens]:
    """Raises Unavailable when the scheduler does not answer."""
    query = {"since": since.isoformat(), "until": until.isoformat()}
    call = Call(method="GET", path=PROBED, query=query, actor="billing", request_id=str(uuid4()))
    reply = await forward(bus, "scheduler", call)
    if reply.status != 200:
        raise Unavailable(f"the scheduler answered {reply.status}")
    return {
        (probe.hour, probe.node_id, probe.model): Tokens(probe.input_tokens, probe.output_tokens)
        for probe in msgspec.json.decode(reply.body, type=Probes).probes
    }
