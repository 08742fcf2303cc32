"""Calls of `/admin/*` that other services answer: passed on over NATS, intent and outcome in the audit log."""

import re
from typing import Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, Response, route
from litestar.handlers import HTTPRouteHandler

from common.bus import Bus
from common.errors import ApiError, NotFound, invalid
from common.rpc import Call, Reply, forward
from gateway.audit import Author
from gateway.journal import Journal

OWNERS = {
    "prices": "billing",
    "plans": "billing",
    "usage": "billing",
    "dead-letters": "billing",
    "stripe": "billing",
    "reconcile": "billing",
    "invoices": "billing",
    "nodes": "scheduler",
    "placements": "scheduler",
    "scale": "provisioner",
}
"""The first word after `/admin/` → the service that answers."""
OWNERS_OF_TENANT = {
    "credits": "billing",
    "balance": "billing",
    "budget": "billing",
    "plan": "billing",
    "notifications": "billing",
    "checkout": "billing",
    "portal": "billing",
}
"""The first word after `/admin/tenants/{id}/`."""
SANDBOX = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "x-content-type-options": "nosniff",
}
"""A page of another service loads nothing and runs nothing."""
METHODS: tuple[Literal["GET", "POST", "PUT", "PATCH", "DELETE"], ...] = ("GET", "POST", "PUT", "PATCH", "DELETE")
WORD = re.compile(r"\A[a-z-]{1,32}\Z")


class _Named(msgspec.Struct, frozen=True):
    tenant_id: UUID | None = None


def handlers(bus: Bus, journal: Journal) -> list[HTTPRouteHandler]:
    @route("/{rest:path}", http_method=METHODS, include_in_schema=False)
    async def owned_elsewhere(request: Request[Any, Any, Any], rest: str, author: Author) -> Response[bytes]:
        return await pass_on(request, OWNERS.get(_first(rest)), author, _named(request.query_params))

    @route("/tenants/{tenant_id:uuid}/{rest:path}", http_method=METHODS, include_in_schema=False)
    async def tenants_elsewhere(
        request: Request[Any, Any, Any], tenant_id: UUID, rest: str, author: Author
    ) -> Response[bytes]:
        return await pass_on(request, OWNERS_OF_TENANT.get(_first(rest)), author, tenant_id)

    async def pass_on(
        request: Request[Any, Any, Any], owner: str | None, author: Author, tenant_id: UUID | None
    ) -> Response[bytes]:
        path = request.url.path
        if owner is None:
            raise NotFound(f"no such path: {path}")
        author = msgspec.structs.replace(author, action=f"{request.method} {template(path)}")
        query, body = dict(request.query_params), await request.body()
        return await passing(bus, journal, author, owner, tenant_id, request.method, path, query, body)

    return [owned_elsewhere, tenants_elsewhere]


async def passing(
    bus: Bus,
    journal: Journal,
    author: Author,
    owner: str,
    tenant_id: UUID | None,
    method: str,
    path: str,
    query: dict[str, str],
    body: bytes,
) -> Response[bytes]:
    """What the owner answers; what is not only read is in the audit log before it is done."""
    try:
        raw = msgspec.json.decode(body, type=msgspec.Raw) if body else msgspec.Raw(b"null")
        msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise invalid(error) from error
    call = Call(method=method, path=path, query=query, body=raw, actor=author.actor, request_id=author.request_id)
    if method == "GET":
        return passed(await forward(bus, owner, call))
    tenant_id = tenant_id or _named(body)
    await journal.intended(author, path, tenant_id, body)
    status = ApiError.status
    try:
        reply = await forward(bus, owner, call)
        status = reply.status
    except ApiError as error:
        status = error.status
        raise
    finally:
        await journal.ended(author, path, tenant_id, status)
    return passed(reply)


def passed(reply: Reply) -> Response[bytes]:
    if reply.media_type == "application/json":
        return Response(bytes(reply.body), status_code=reply.status, media_type=reply.media_type)
    headers = dict(SANDBOX)
    if reply.file_name:
        headers["content-disposition"] = f'attachment; filename="{reply.file_name}"'
    text = msgspec.json.decode(reply.body, type=str)
    return Response(text.encode(), status_code=reply.status, media_type=reply.media_type, headers=headers)


def template(path: str) -> str:
    """The path without what names one thing: `/admin/nodes/{id}/drain`."""
    return "/".join(part if not part or WORD.match(part) else "{id}" for part in path.split("/"))


def _first(rest: str) -> str:
    return rest.strip("/").split("/")[0]


def _named(content: Any) -> UUID | None:
    """The tenant that a query or a body names, for the audit log; the owner decides whether it is right."""
    try:
        if isinstance(content, bytes):
            return msgspec.json.decode(content, type=_Named).tenant_id if content else None
        return msgspec.convert(dict(content), _Named).tenant_id
    except msgspec.MsgspecError:
        return None
