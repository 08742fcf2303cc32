"""`rpc.provisioner`: deployments, launches and the fleet. Any replica answers; the one that leads carries out."""

from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from common.db import Pool, transaction
from common.deployments import Scaling, Spec
from common.errors import NotFound
from common.rpc import Call, Router, fitting
from provisioner import launch_store, store
from provisioner.deployments import Deployments, Planned, Shown
from provisioner.launch_store import Told
from provisioner.launcher import LogPart
from provisioner.logs import Logs


class Admin(msgspec.Struct, frozen=True):
    """What the routes work with."""

    pool: Pool
    deployments: Deployments
    logs: Logs


class Scale(msgspec.Struct, frozen=True):
    desired: list[store.Desired]


class DeploymentList(msgspec.Struct, frozen=True):
    deployments: list[Shown]


class LaunchList(msgspec.Struct, frozen=True):
    launches: list[Told]
    cursor: UUID | None
    """Of the next page; None on the last."""


class Fleet(msgspec.Struct, frozen=True):
    """What costs money now."""

    machines: list[Told]
    hourly_usd: str


class _Page(msgspec.Struct, frozen=True):
    deployment_id: UUID | None = None
    cursor: UUID | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class _From(msgspec.Struct, frozen=True):
    offset: Annotated[int, Meta(ge=0, le=2**53)] = 0


router: Router[Admin] = Router()


@router.route("GET", "/admin/scale")
async def get_scale(admin: Admin, call: Call) -> Scale:
    async with transaction(admin.pool) as connection:
        return Scale(await store.desired(connection))


@router.route("POST", "/admin/deployments", status=201)
async def create(admin: Admin, call: Call) -> Shown:
    return await admin.deployments.create(call.parse(Spec))


@router.route("GET", "/admin/deployments")
async def listed(admin: Admin, call: Call) -> DeploymentList:
    return DeploymentList(list(fitting(await admin.deployments.listed())))


@router.route("POST", "/admin/deployments/plan")
async def plan(admin: Admin, call: Call) -> Planned:
    return await admin.deployments.plan(call.parse(Spec))


@router.route("GET", "/admin/deployments/{id}")
async def one(admin: Admin, call: Call, id: str) -> Shown:
    return await admin.deployments.one(_id(id))


@router.route("PATCH", "/admin/deployments/{id}")
async def change(admin: Admin, call: Call, id: str) -> Shown:
    return await admin.deployments.change(_id(id), call.parse(dict[str, msgspec.Raw]))


@router.route("DELETE", "/admin/deployments/{id}")
async def delete(admin: Admin, call: Call, id: str) -> Shown:
    return await admin.deployments.delete(_id(id))


@router.route("POST", "/admin/deployments/{id}/plan")
async def preview(admin: Admin, call: Call, id: str) -> Planned:
    return await admin.deployments.preview(_id(id), call.parse(dict[str, msgspec.Raw]))


@router.route("POST", "/admin/deployments/{id}/scale")
async def scale(admin: Admin, call: Call, id: str) -> Shown:
    return await admin.deployments.scale(_id(id), call.parse(Scaling).replicas)


@router.route("GET", "/admin/launches")
async def launches(admin: Admin, call: Call) -> LaunchList:
    asked = call.parse_query(_Page)
    async with transaction(admin.pool) as connection:
        found = await launch_store.told(
            connection, deployment_id=asked.deployment_id, before=asked.cursor, limit=asked.limit + 1
        )
    page = list(fitting(found[: asked.limit]))
    return LaunchList(page, page[-1].id if len(page) < len(found) else None)


@router.route("GET", "/admin/launches/{id}")
async def launch(admin: Admin, call: Call, id: str) -> Told:
    async with transaction(admin.pool) as connection:
        found = await launch_store.told(connection, id=_id(id))
    if not found:
        raise NotFound("there is no such launch", param="id")
    return found[0]


@router.route("GET", "/admin/launches/{id}/logs")
async def log(admin: Admin, call: Call, id: str) -> LogPart:
    """One part; the gateway makes a stream of them."""
    return await admin.logs.part(_id(id), call.parse_query(_From).offset)


@router.route("GET", "/admin/fleet")
async def fleet(admin: Admin, call: Call) -> Fleet:
    async with transaction(admin.pool) as connection:
        machines = await launch_store.told_live(connection)
        hourly = await launch_store.hourly(connection)
    return Fleet(list(fitting(machines)), hourly)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound("there is no such thing", param="id") from error
