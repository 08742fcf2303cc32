"""The scheduler's nodes, as the provisioner needs them: registered, watched, drained, removed over its admin calls."""

from typing import Any  # Any: a JSON body

import msgspec

from common.bus import Bus
from common.errors import Unavailable
from common.ids import new_id
from common.routing import State
from common.rpc import Call, forward

ACTOR = "provisioner"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    endpoint: str
    state: State
    weight: float
    live: int | None
    """Requests on it now; None while nobody knows."""


class _Nodes(msgspec.Struct, frozen=True):
    nodes: list[Node]


class Refused(Exception):
    """The scheduler will not have it."""


class Nodes:
    """Every method raises Unavailable when the scheduler does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def all(self) -> dict[str, Node]:
        reply = await self._ask("GET", "/admin/nodes")
        return {node.id: node for node in msgspec.json.decode(reply, type=_Nodes).nodes}

    async def register(self, endpoint: str, region: str, key: str, weight: float) -> str:
        """Known endpoints keep their id. Raises Refused."""
        body = {"endpoint": endpoint, "region": region, "api_key": key, "weight": weight}
        return msgspec.json.decode(await self._ask("POST", "/admin/nodes", body), type=Node).id

    async def drain(self, id: str) -> None:
        await self._ask("POST", f"/admin/nodes/{id}/drain", missing=True)

    async def remove(self, id: str) -> None:
        await self._ask("DELETE", f"/admin/nodes/{id}", missing=True)

    async def _ask(self, method: str, path: str, body: Any = None, *, missing: bool = False) -> bytes:
        """`missing`: one that is not there is as good as done."""
        raw = msgspec.Raw(msgspec.json.encode(body))
        call = Call(method=method, path=path, body=raw, actor=ACTOR, request_id=str(new_id()))
        reply = await forward(self._bus, "scheduler", call)
        if reply.status < 300 or (missing and reply.status == 404):
            return bytes(reply.body)
        if reply.status >= 500:
            raise Unavailable(f"the scheduler answered {reply.status} to {method} {path}")
        raise Refused(f"the scheduler answered {reply.status} to {method} {path}: {bytes(reply.body)[:300]!r}")
