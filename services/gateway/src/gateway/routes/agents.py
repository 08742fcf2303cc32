"""What nodes tell of themselves: passed on to the scheduler, which knows the digest of each node's token."""

import hashlib
from typing import Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler

from common.bus import Bus
from common.errors import InvalidApiKey, invalid
from common.ids import new_id
from common.rpc import Call, forward
from gateway import admin_token
from gateway.routes.forwarded import passed
from gateway.routes.guards import Guards


def handlers(bus: Bus, guards: Guards) -> list[HTTPRouteHandler]:
    # in no document of the public API: the one who calls is our own agent
    @post("/nodes/{node_id:uuid}/heartbeat", include_in_schema=False, status_code=200)
    async def heartbeat(request: Request[Any, Any, Any], node_id: UUID) -> Response[bytes]:
        return await pass_on(request, node_id, "heartbeat")

    @post("/nodes/{node_id:uuid}/draining", include_in_schema=False, status_code=200)
    async def draining(request: Request[Any, Any, Any], node_id: UUID) -> Response[bytes]:
        return await pass_on(request, node_id, "draining")

    async def pass_on(
        request: Request[Any, Any, Any], node_id: UUID, what: Literal["heartbeat", "draining"]
    ) -> Response[bytes]:
        address = guards.address(request)
        token = admin_token.given(request.headers.get("authorization"), None)
        if not token:
            raise InvalidApiKey("no token: send the node's as `Authorization: Bearer …`")
        body = await request.body()
        try:
            raw = msgspec.json.decode(body, type=msgspec.Raw) if body else msgspec.Raw(b"{}")
        except msgspec.DecodeError as error:
            raise invalid(error) from error
        call = Call(
            method="POST",
            path=f"/nodes/{node_id}/{what}",
            body=raw,
            actor=f"node:{node_id}",
            request_id=str(new_id()),
            token_sha256=hashlib.sha256(token.encode()).hexdigest(),
        )
        reply = await forward(bus, "scheduler", call)
        if reply.status == InvalidApiKey.status:
            await guards.failed(address)
        return passed(reply)

    return [heartbeat, draining]
