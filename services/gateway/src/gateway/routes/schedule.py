"""`GET /admin/schedule/*`: why a request goes where it goes, and who waits."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter

from gateway.lines import Lines
from gateway.placement import Placement
from gateway.placing.explanation import Explanation
from gateway.placing.wanted import Wanted
from gateway.queue import Queue


def handlers(placement: Placement, queue: Queue) -> list[HTTPRouteHandler]:
    @get("/schedule/explain")
    async def explain_placement(
        model: Annotated[str, Parameter(min_length=1, max_length=256)],
        region: Annotated[str, Parameter(max_length=64)] = "",
        tenant_id: UUID | None = None,
        session: Annotated[str, Parameter(max_length=256)] = "",
        user: Annotated[str, Parameter(max_length=256)] = "",
        prompt: Annotated[str, Parameter(max_length=4096)] = "",
        tokens: Annotated[int, Parameter(ge=0, le=100_000_000)] = 0,
    ) -> Explanation:
        """As this gateway sees it now: nothing is taken. `prompt` is text, or a list of messages as JSON."""
        wanted = Wanted(
            tokens=tokens,
            region=region,
            tenant=str(tenant_id or ""),
            session=session.encode(),
            user=user.encode(),
            prompt=_json(prompt),
        )
        return await placement.explain(model, wanted)

    @get("/schedule/queue")
    async def list_waiting() -> Lines:
        """Requests that wait for a slot, at all gateways: by model, and in it by tenant and class."""
        return await queue.lines()

    return [explain_placement, list_waiting]


def _json(prompt: str) -> msgspec.Raw:
    try:
        msgspec.json.decode(prompt, type=list[msgspec.Raw])
        return msgspec.Raw(prompt.encode())
    except msgspec.MsgspecError:
        return msgspec.Raw(msgspec.json.encode(prompt) if prompt else b"")
