"""`/admin/deployments` and the logs of `/admin/launches`: the spec is checked at the door, and again by its owner."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from litestar.response import Stream

from common.bus import Bus
from common.deployments import Spec
from common.errors import ApiError, invalid, reply_of
from common.rpc import Call, forward
from gateway.audit import Author
from gateway.journal import Journal
from gateway.routes.forwarded import passed, passing, template

OWNER = "provisioner"
ONE = "/deployments/{deployment_id:uuid}"
EVERY = 0.5
"""Seconds between two looks for more of a log."""


class _Part(msgspec.Struct, frozen=True):
    text: str
    next: int
    done: bool


def handlers(bus: Bus, journal: Journal) -> list[HTTPRouteHandler]:
    @post("/deployments", status_code=201)
    async def create_deployment(request: Request[Any, Any, Any], author: Author) -> Response[bytes]:
        """Validated, priced and planned; its machines follow."""
        _check(await request.body())
        return await pass_on(bus, journal, request, author)

    @post("/deployments/plan", status_code=200)
    async def plan_deployment(request: Request[Any, Any, Any], author: Author) -> Response[bytes]:
        """What would be run, on what, for how much; nothing is launched."""
        _check(await request.body())
        return await pass_on(bus, journal, request, author)

    @get("/deployments")
    async def list_deployments(request: Request[Any, Any, Any], author: Author) -> Response[bytes]:
        return await pass_on(bus, journal, request, author)

    @get(ONE)
    async def deployment(request: Request[Any, Any, Any], deployment_id: UUID, author: Author) -> Response[bytes]:
        """With its launches that have not ended, and what it has cost this month."""
        return await pass_on(bus, journal, request, author)

    @patch(ONE)
    async def change_deployment(
        request: Request[Any, Any, Any], deployment_id: UUID, author: Author
    ) -> Response[bytes]:
        """Fields of the spec; null takes one back to its default. New machines are ready before the old ones go."""
        return await pass_on(bus, journal, request, author)

    @delete(ONE, status_code=200)
    async def delete_deployment(
        request: Request[Any, Any, Any], deployment_id: UUID, author: Author
    ) -> Response[bytes]:
        """Its machines are drained and ended first; it is shown as deleting until then."""
        return await pass_on(bus, journal, request, author)

    @post(f"{ONE}/plan", status_code=200)
    async def plan_change(request: Request[Any, Any, Any], deployment_id: UUID, author: Author) -> Response[bytes]:
        """What a change would lead to."""
        return await pass_on(bus, journal, request, author)

    @post(f"{ONE}/scale", status_code=200)
    async def scale_deployment(request: Request[Any, Any, Any], deployment_id: UUID, author: Author) -> Response[bytes]:
        """Within its bounds, until the scheduler asks for another number."""
        return await pass_on(bus, journal, request, author)

    @get("/fleet")
    async def fleet(request: Request[Any, Any, Any], author: Author) -> Response[bytes]:
        """The machines that cost money now."""
        return await pass_on(bus, journal, request, author)

    @get("/launches")
    async def list_launches(
        request: Request[Any, Any, Any],
        author: Author,
        deployment_id: UUID | None = None,
        cursor: UUID | None = None,
        limit: Annotated[int, Parameter(ge=1, le=1000)] = 100,
    ) -> Response[bytes]:
        """The newest first; `cursor` is the one that the page before told."""
        return await pass_on(bus, journal, request, author)

    @get("/launches/{launch_id:uuid}")
    async def launch(request: Request[Any, Any, Any], launch_id: UUID, author: Author) -> Response[bytes]:
        return await pass_on(bus, journal, request, author)

    @get("/launches/{launch_id:uuid}/logs", media_type="text/event-stream")
    async def follow_launch(launch_id: UUID, author: Author) -> Stream | Response[bytes]:
        """Server-sent events `log` with `{"text"}`, from the beginning; `done` at the end, `error` when it is lost."""
        first = await forward(bus, OWNER, _call(launch_id, 0, author))
        if first.status != 200:
            return passed(first)
        part = msgspec.json.decode(first.body, type=_Part)
        return Stream(_events(bus, launch_id, author, part), media_type="text/event-stream")

    return [
        *(create_deployment, plan_deployment, list_deployments, deployment, change_deployment, delete_deployment),
        *(plan_change, scale_deployment, fleet, list_launches, launch, follow_launch),
    ]


async def pass_on(bus: Bus, journal: Journal, request: Request[Any, Any, Any], author: Author) -> Response[bytes]:
    path, query, body = request.url.path, dict(request.query_params), await request.body()
    author = msgspec.structs.replace(author, action=f"{request.method} {template(path)}")
    return await passing(bus, journal, author, OWNER, None, request.method, path, query, body)


async def _events(bus: Bus, launch_id: UUID, author: Author, part: _Part) -> AsyncIterator[bytes]:
    while True:
        if part.text:
            yield _event("log", {"text": part.text})
        if part.done:
            yield _event("done", {})
            return
        if not part.text:
            await asyncio.sleep(EVERY)
            yield b": waiting\n\n"
        try:
            reply = await forward(bus, OWNER, _call(launch_id, part.next, author))
            part = msgspec.json.decode(reply.body, type=_Part)
        except ApiError as error:
            yield _event("error", msgspec.to_builtins(reply_of(error)))
            return
        except msgspec.ValidationError:  # an error of its owner's, which has its shape already
            yield _event("error", msgspec.json.decode(reply.body))
            return


def _event(name: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


def _call(launch_id: UUID, offset: int, author: Author) -> Call:
    return Call(
        method="GET",
        path=f"/admin/launches/{launch_id}/logs",
        query={"offset": str(offset)},
        actor=author.actor,
        request_id=author.request_id,
    )


def _check(body: bytes) -> None:
    try:
        msgspec.json.decode(body, type=Spec)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise invalid(error) from error
