"""Health, the models that a key may use, and the key's own usage."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler

from common.bus import Bus
from common.errors import NotFound
from common.ids import new_id
from common.rpc import Call, forward
from common.webhooks import STRIPE, Delivered
from gateway.door import bearer
from gateway.identity import Identity
from gateway.nodes import Nodes
from gateway.routes.forwarded import passed

LARGEST_WEBHOOK = 512 * 1024
"""Bytes; Stripe's are below a half of it."""


class Readiness:
    def __init__(self) -> None:
        self.ready = False


class ModelCard(msgspec.Struct, frozen=True):
    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int | None


class ModelList(msgspec.Struct, frozen=True):
    object: str
    data: list[ModelCard]


def handlers(identity: Identity, nodes: Nodes, bus: Bus, readiness: Readiness) -> list[HTTPRouteHandler]:
    started = int(datetime.now(UTC).timestamp())

    @get("/healthz", sync_to_thread=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @get("/readyz", sync_to_thread=False)
    def readyz() -> Response[dict[str, str]]:
        ready = readiness.ready
        return Response({"status": "ready" if ready else "not ready"}, status_code=200 if ready else 503)

    def card(id: str, length: int) -> ModelCard:
        return ModelCard(id, "model", started, "crosslogic", length or None)

    @get("/v1/models")
    async def models(request: Request[Any, Any, Any]) -> ModelList:
        caller = await identity.caller(_key(request), "models:read")
        shown = [m for m in nodes.models if caller.models is None or m.id in caller.models]
        return ModelList("list", [card(model.id, model.max_model_len) for model in shown])

    @get("/v1/models/{id:path}")
    async def model(request: Request[Any, Any, Any], id: str) -> ModelCard:
        caller = await identity.caller(_key(request), "models:read")
        wanted = id.removeprefix("/")
        for found in nodes.models:
            if found.id == wanted and (caller.models is None or wanted in caller.models):
                return card(found.id, found.max_model_len)
        raise NotFound(f"the model `{wanted}` does not exist", param="model", code="model_not_found")

    @get("/v1/usage")
    async def own_usage(request: Request[Any, Any, Any]) -> Response[bytes]:
        caller = await identity.caller(_key(request), "usage:read")
        query = {**dict(request.query_params), "api_key_id": str(caller.api_key_id)}
        call = Call(
            method="GET", path="/v1/usage", query=query, actor=f"key:{caller.api_key_id}", request_id=str(new_id())
        )
        return passed(await forward(bus, "billing", call))

    @post(STRIPE, status_code=200, request_max_body_size=LARGEST_WEBHOOK, include_in_schema=False)
    async def stripe_webhook(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Billing checks the signature, and answers once it is committed."""
        delivered = Delivered(await request.body(), request.headers.get("stripe-signature"))
        body = msgspec.Raw(msgspec.json.encode(delivered))
        call = Call(method="POST", path=STRIPE, body=body, actor="stripe", request_id=str(new_id()))
        return passed(await forward(bus, "billing", call))

    return [healthz, readyz, models, model, own_usage, stripe_webhook]


def _key(request: Request[Any, Any, Any]) -> str:
    return bearer(list(request.scope["headers"]))
