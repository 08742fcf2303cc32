"""Everything but inference, on Litestar: models, health, and the admin API, guarded here and served by its owner."""

import logging
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Litestar, Request, Response, Router, delete, get, patch, post, route
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, ScalarRenderPlugin
from litestar.params import Parameter

from common.bus import Bus
from common.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound, invalid, named_field, reply_of
from common.ids import new_id
from common.rpc import Call, Reply, forward
from gateway import accounts
from gateway.accounts import Accounts
from gateway.admin_token import AdminToken
from gateway.door import bearer
from gateway.identity import Identity
from gateway.nodes import Nodes
from gateway.store import ApiKey, Environment, Tenant

log = logging.getLogger(__name__)

OWNERS = {
    "prices": "billing",
    "usage": "billing",
    "dead-letters": "billing",
    "nodes": "scheduler",
    "scale": "provisioner",
}
"""The first word after `/admin/` → the service that answers."""


class Services(msgspec.Struct, frozen=True):
    """What the handlers need; opened by `app`."""

    accounts: Accounts
    identity: Identity
    nodes: Nodes
    admin: AdminToken
    bus: Bus
    max_body_bytes: int


class Readiness:
    def __init__(self) -> None:
        self.ready = False


class Tenants(msgspec.Struct, frozen=True):
    tenants: list[Tenant]


class Keys(msgspec.Struct, frozen=True):
    api_keys: list[ApiKey]


class ModelCard(msgspec.Struct, frozen=True):
    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int | None


class ModelList(msgspec.Struct, frozen=True):
    object: str
    data: list[ModelCard]


def build(services: Services, readiness: Readiness) -> Litestar:
    started = int(datetime.now(UTC).timestamp())

    def only_admins(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:  # Any: Litestar's
        services.admin.check(connection.headers.get("authorization"), connection.headers.get("x-admin-token"))

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
        caller = await services.identity.caller(_key(request))
        shown = [m for m in services.nodes.models if caller.models is None or m.id in caller.models]
        return ModelList("list", [card(model.id, model.max_model_len) for model in shown])

    @get("/v1/models/{id:path}")
    async def model(request: Request[Any, Any, Any], id: str) -> ModelCard:
        caller = await services.identity.caller(_key(request))
        wanted = id.removeprefix("/")
        for found in services.nodes.models:
            if found.id == wanted and (caller.models is None or wanted in caller.models):
                return card(found.id, found.max_model_len)
        raise NotFound(f"the model `{wanted}` does not exist", param="model", code="model_not_found")

    @get("/v1/usage")
    async def own_usage(request: Request[Any, Any, Any]) -> Response[bytes]:
        caller = await services.identity.caller(_key(request))
        query = {**dict(request.query_params), "api_key_id": str(caller.api_key_id)}
        call = Call(
            method="GET", path="/v1/usage", query=query, actor=f"key:{caller.api_key_id}", request_id=str(new_id())
        )
        return _passed(await forward(services.bus, "billing", call))

    @post("/tenants", status_code=201)
    async def create_tenant(data: accounts.NewTenant) -> Tenant:
        return await services.accounts.create_tenant(data)

    @get("/tenants")
    async def tenants() -> Tenants:
        return Tenants(await services.accounts.tenants())

    @get("/tenants/{tenant_id:uuid}")
    async def tenant(tenant_id: UUID) -> Tenant:
        return await services.accounts.tenant(tenant_id)

    @patch("/tenants/{tenant_id:uuid}")
    async def change_tenant(tenant_id: UUID, data: accounts.TenantChange) -> Tenant:
        return await services.accounts.change_tenant(tenant_id, data, datetime.now(UTC))

    @post("/tenants/{tenant_id:uuid}/environments", status_code=201)
    async def create_environment(tenant_id: UUID, data: accounts.NewEnvironment) -> Environment:
        return await services.accounts.create_environment(tenant_id, data)

    @patch("/tenants/{tenant_id:uuid}/environments/{environment_id:uuid}")
    async def change_environment(
        tenant_id: UUID, environment_id: UUID, data: accounts.EnvironmentChange
    ) -> Environment:
        return await services.accounts.change_environment(tenant_id, environment_id, data, datetime.now(UTC))

    @post("/api-keys", status_code=201)
    async def create_key(data: accounts.NewKey) -> accounts.CreatedKey:
        return await services.accounts.create_key(data, datetime.now(UTC))

    @get("/api-keys")
    async def list_keys(tenant: Annotated[UUID, Parameter(query="tenant_id")]) -> Keys:
        return Keys(await services.accounts.keys(tenant))

    @delete("/api-keys/{key_id:uuid}")
    async def revoke_key(key_id: UUID) -> None:
        await services.accounts.revoke_key(key_id, datetime.now(UTC))

    @route("/{rest:path}", http_method=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    async def owned_elsewhere(request: Request[Any, Any, Any], rest: str) -> Response[bytes]:
        owner = OWNERS.get(rest.strip("/").split("/")[0])
        if owner is None:
            raise NotFound(f"no such path: {request.url.path}")
        body = await request.body()
        try:
            raw = msgspec.json.decode(body, type=msgspec.Raw) if body else msgspec.Raw(b"null")
            msgspec.json.decode(raw)
        except msgspec.DecodeError as error:
            raise invalid(error) from error
        call = Call(
            method=request.method,
            path=request.url.path,
            query=dict(request.query_params),
            body=raw,
            actor="operator",
            request_id=str(new_id()),
        )
        return _passed(await forward(services.bus, owner, call))

    admin = Router(
        "/admin",
        route_handlers=[
            create_tenant,
            tenants,
            tenant,
            change_tenant,
            create_environment,
            change_environment,
            create_key,
            list_keys,
            revoke_key,
            owned_elsewhere,
        ],
        guards=[only_admins],
    )
    return Litestar(
        [healthz, readyz, models, model, own_usage, admin],
        exception_handlers={ApiError: _told, HTTPException: _http, Exception: _bug},
        openapi_config=OpenAPIConfig(
            title="CrossLogic Inference Cloud",
            version="1",
            path="/",
            render_plugins=[ScalarRenderPlugin(path="/docs"), JsonRenderPlugin(path="/openapi.json")],
        ),
        request_max_body_size=services.max_body_bytes,
        logging_config=None,
    )


def _key(request: Request[Any, Any, Any]) -> str:
    return bearer(list(request.scope["headers"]))


def _passed(reply: Reply) -> Response[bytes]:
    return Response(bytes(reply.body), status_code=reply.status, media_type="application/json")


def _told(_: Request[Any, Any, Any], error: ApiError) -> Response[bytes]:
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    body = msgspec.json.encode(reply_of(error))
    return Response(body, status_code=error.status, media_type="application/json", headers=headers)


def _bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _told(request, ApiError("internal error"))


def _http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Litestar's own errors in the API's shape, naming the field."""
    if isinstance(error, ValidationException) or error.status_code == 400:
        first = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
        detail = str(first.get("message", error.detail)) if isinstance(first, dict) else error.detail
        param = first.get("key") if isinstance(first, dict) else None
        return _told(request, InvalidRequest(detail, param=named_field(detail) if param in (None, "data") else param))
    if error.status_code == 404:
        return _told(request, NotFound(f"no such path: {request.url.path}"))
    if error.status_code == 405:
        return _told(request, MethodNotAllowed(f"{request.method} is not allowed here"))
    told = ApiError(error.detail)
    told.status = error.status_code
    return _told(request, told)
