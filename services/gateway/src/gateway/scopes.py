"""Which scope a call of `/admin/*` needs, and whether its caller has it. Pure."""

import msgspec

from common.errors import Forbidden

OF_PATH = {
    "tenants": "tenants",
    "api-keys": "keys",
    "prices": "prices",
    "plans": "prices",
    "usage": "usage",
    "invoices": "usage",
    "reconcile": "usage",
    "nodes": "nodes",
    "placements": "nodes",
    "schedule": "nodes",
    "scale": "deployments",
    "deployments": "deployments",
    "launches": "deployments",
    "fleet": "deployments",
    "audit": "audit",
    "dead-letters": "dead-letters",
}
"""The first word after `/admin/` → the scope; what is not here needs `*`."""


class Principal(msgspec.Struct, frozen=True):
    actor: str
    scopes: frozenset[str]


ROOT = Principal("root", frozenset({"*"}))


def check(principal: Principal, method: str, path: str) -> None:
    """`path` is what follows `/admin/`. Raises Forbidden naming the scope that is missing."""
    scopes = principal.scopes
    needed = OF_PATH.get(path.split("/")[0])
    if "*" in scopes or needed in scopes:
        return
    if needed is None:
        raise Forbidden("only the root token or an operator of scope `*` may do this", code="scope_missing")
    reads = method in ("GET", "HEAD")
    if reads and not scopes.isdisjoint({"*:read", f"{needed}:read"}):
        return
    raise Forbidden(f"the operator lacks the scope `{needed}{':read' if reads else ''}`", code="scope_missing")
