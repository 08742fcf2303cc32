"""Everything but inference, on Litestar: health, models, the admin API, and what signed-in people may do."""

import msgspec
from litestar import Litestar, Router
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig

from common.bus import Bus
from common.errors import ApiError
from gateway.api_keys import ApiKeys
from gateway.identity import Identity
from gateway.journal import Journal
from gateway.members import Members
from gateway.nodes import Nodes
from gateway.operators import Operators
from gateway.placement import Placement
from gateway.queue import Queue
from gateway.routes import account, admin, agents, deployments, docs, errors, forwarded, guards, public, schedule
from gateway.routes.finishing import Finishing
from gateway.routes.guards import Connection, Guards
from gateway.routes.public import Readiness
from gateway.tenants import Tenants

__all__ = ["Readiness", "Services", "build"]


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the handlers need; opened by `app`."""

    identity: Identity
    nodes: Nodes
    placement: Placement
    queue: Queue
    bus: Bus
    tenants: Tenants
    members: Members
    api_keys: ApiKeys
    operators: Operators
    journal: Journal
    guards: Guards
    max_body_bytes: int


def build(services: Services, readiness: Readiness) -> Finishing:
    return Finishing(litestar(services, readiness))


def litestar(services: Services, readiness: Readiness) -> Litestar:
    # functions, not methods: Litestar copies what it is given, and with a method all that it is bound to
    async def admins(connection: Connection, handler: BaseRouteHandler) -> None:
        await services.guards.admin(connection, handler)

    async def people(connection: Connection, handler: BaseRouteHandler) -> None:
        await services.guards.account(connection, handler)

    for_admins = Router(
        "/admin",
        route_handlers=[
            *admin.of_tenants(services.tenants),
            *admin.of_members(services.members),
            *admin.of_keys(services.api_keys),
            *admin.of_operators(services.operators),
            *admin.of_audit(services.journal),
            *deployments.handlers(services.bus, services.journal),
            *schedule.handlers(services.placement, services.queue),
            *forwarded.handlers(services.bus, services.journal),
        ],
        guards=[admins],
    )
    for_people = Router(
        "/account",
        route_handlers=[
            *account.of_person(services.members, services.tenants),
            *account.of_keys(services.api_keys),
            *account.of_members(services.members),
            *account.of_environments(services.tenants),
            *account.of_usage(services.bus),
            *account.of_money(services.bus, services.journal),
            *account.of_notifications(services.bus, services.journal),
            *account.of_audit(services.journal),
        ],
        guards=[people],
    )
    return Litestar(
        [
            *public.handlers(services.identity, services.nodes, services.bus, readiness),
            *docs.handlers(),
            *agents.handlers(services.bus, services.guards),
            for_admins,
            for_people,
        ],
        exception_handlers={ApiError: errors.told, HTTPException: errors.http, Exception: errors.bug},
        dependencies={
            "author": Provide(guards.author),
            "person": Provide(guards.person),
            # named as no field of a body is: Litestar takes an error in a field of that name for one of its own, a 500
            "own_role": Provide(guards.role),
        },
        before_send=[guards.name_request],
        openapi_config=OpenAPIConfig(
            title="CrossLogic Inference Cloud",
            version="1",
            path="/",
            render_plugins=[docs.Whole(path="/openapi.json")],
        ),
        request_max_body_size=services.max_body_bytes,
        logging_config=None,
    )
