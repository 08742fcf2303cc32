"""Who is let in to `/admin/*` and `/account/*`; who is not is told so, slowed down, and written to the audit log."""

from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from common.errors import ApiError, Forbidden, InvalidApiKey, NotFound
from common.ids import new_id
from gateway import addresses, admin_token, roles, scopes
from gateway.addresses import Network
from gateway.audit import Author
from gateway.failures import Failures
from gateway.journal import Journal
from gateway.members import Members
from gateway.oidc import People, Person
from gateway.operators import Operators
from gateway.roles import Role

Connection: TypeAlias = ASGIConnection[Any, Any, Any, Any]  # Any: Litestar's
DENIED = (401, 403, 404, 429)
READS = ("GET", "HEAD")


class Guards:
    def __init__(
        self,
        operators: Operators,
        people: People,
        members: Members,
        journal: Journal,
        failures: Failures,
        trusted: tuple[Network, ...],
    ) -> None:
        self._operators = operators
        self._people = people
        self._members = members
        self._journal = journal
        self._failures = failures
        self._trusted = trusted

    async def admin(self, connection: Connection, _: BaseRouteHandler) -> None:
        author = self._author(connection)
        try:
            self._failures.check(author.address)
            given = admin_token.given(connection.headers.get("authorization"), connection.headers.get("x-admin-token"))
            try:
                principal = await self._operators.principal(given, datetime.now(UTC))
            except InvalidApiKey:
                await self._failures.count(author.address)
                raise
            author = msgspec.structs.replace(author, actor=principal.actor)
            scopes.check(principal, _method(connection), _path(connection).removeprefix("/admin/"))
        except ApiError as error:
            await self._denied(connection, author, error)
            raise
        _state(connection)["author"] = author

    def address(self, connection: Connection) -> str:
        """Where a call without an account of ours comes from. Raises Overloaded while it has failed too often."""
        address = self._author(connection).address
        self._failures.check(address)
        return address

    async def failed(self, address: str) -> None:
        """Its credential was wrong."""
        await self._failures.count(address)

    async def account(self, connection: Connection, handler: BaseRouteHandler) -> None:
        author = self._author(connection)
        tenant_id: UUID | None = connection.path_params.get("tenant_id")
        role: Role | None = None
        try:
            self._failures.check(author.address)
            person = await self._person(connection, author.address)
            author = msgspec.structs.replace(author, actor=f"user:{person.email}")
            if tenant_id is not None:
                memberships = await self._members.of_person(person.email)
                membership = next((m for m in memberships if m.tenant_id == tenant_id), None)
                if membership is None:  # as if there were none: who is not a member learns nothing
                    raise NotFound(f"no tenant {tenant_id}", param="tenant_id")
                role = membership.role
                roles.check(role, handler.opt["permission"])
                shut = membership.status == "suspended" and not handler.opt.get("while_suspended")
                if shut and _method(connection) not in READS:
                    raise Forbidden("the tenant is suspended", code="tenant_suspended")
        except ApiError as error:
            await self._denied(connection, author, error, tenant_id if role is not None else None)
            raise
        _state(connection).update(author=author, person=person, role=role)

    async def _person(self, connection: Connection, address: str) -> Person:
        try:
            return await self._people.person(admin_token.given(connection.headers.get("authorization"), None))
        except InvalidApiKey as error:
            if error.code != "token_expired":  # which happens to everybody
                await self._failures.count(address)
            raise

    async def _denied(
        self, connection: Connection, author: Author, error: ApiError, tenant_id: UUID | None = None
    ) -> None:
        _state(connection)["author"] = author
        if error.status in DENIED:
            await self._journal.denied(author, error.status, _path(connection), tenant_id)

    def _author(self, connection: Connection) -> Author:
        peer = connection.scope["client"]
        forwarded_for = [v.decode("latin-1") for k, v in connection.scope["headers"] if k == b"x-forwarded-for"]
        address = addresses.client(peer[0] if peer else None, forwarded_for, self._trusted)
        template = connection.scope.get("path_template", "")
        return Author("unknown", f"{_method(connection)} {template}", address, str(new_id()))


async def author(request: Request[Any, Any, Any]) -> Author:
    """Litestar's dependency: who was let in."""
    found: Author = request.scope["state"]["author"]
    return found


async def person(request: Request[Any, Any, Any]) -> Person:
    found: Person = request.scope["state"]["person"]
    return found


async def role(request: Request[Any, Any, Any]) -> Role:
    """Of the person in the tenant of the path."""
    found: Role = request.scope["state"]["role"]
    return found


async def name_request(message: Any, scope: Any) -> None:
    """Litestar's `before_send`: `x-request-id`, as the audit log has it."""
    if message["type"] == "http.response.start" and (found := scope["state"].get("author")) is not None:
        message["headers"] = [*message.get("headers", []), (b"x-request-id", found.request_id.encode())]


def _method(connection: Connection) -> str:
    return str(connection.scope["method"])  # type: ignore[typeddict-item]  # HTTP only


def _path(connection: Connection) -> str:
    return str(connection.scope["path"])


def _state(connection: Connection) -> dict[str, Any]:
    state: dict[str, Any] = connection.scope["state"]
    return state
