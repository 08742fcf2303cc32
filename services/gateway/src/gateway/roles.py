"""What each role of a tenant's members may do. Pure.

| | owner | admin | developer | billing | viewer |
|---|---|---|---|---|---|
| read the tenant, environments, members | x | x | x | x | x |
| read API keys | x | x | x | | x |
| create, change, rotate, revoke API keys | x | x | x | | |
| read usage | x | x | x | x | x |
| read plan, balance, credits, invoices; change the budget, pay | x | x | | x | |
| read and change where notifications go | x | x | | x | |
| change members (those who are owners: owners only), environments | x | x | | | |
| read the audit log (it has people's addresses) | x | x | | | |
"""

from typing import Literal, TypeAlias

from common.errors import Forbidden

Role: TypeAlias = Literal["owner", "admin", "developer", "billing", "viewer"]
Permission: TypeAlias = Literal[
    "tenant:read",
    "environments:read",
    "environments:write",
    "members:read",
    "members:write",
    "keys:read",
    "keys:write",
    "usage:read",
    "billing:read",
    "billing:write",
    "notifications:read",
    "notifications:write",
    "audit:read",
]
_EVERYBODY: frozenset[Permission] = frozenset({"tenant:read", "environments:read", "members:read", "usage:read"})
_MONEY: frozenset[Permission] = frozenset(
    {"billing:read", "billing:write", "notifications:read", "notifications:write"}
)
_ALL: frozenset[Permission] = (
    _EVERYBODY
    | _MONEY
    | {
        "environments:write",
        "members:write",
        "keys:read",
        "keys:write",
        "audit:read",
    }
)
GRANTS: dict[Role, frozenset[Permission]] = {
    "owner": _ALL,
    "admin": _ALL,
    "developer": _EVERYBODY | {"keys:read", "keys:write"},
    "billing": _EVERYBODY | _MONEY,
    "viewer": _EVERYBODY | {"keys:read"},
}


def check(role: Role, permission: Permission) -> None:
    """Raises Forbidden."""
    if permission not in GRANTS[role]:
        raise Forbidden(f"the role `{role}` may not do this", code="role_missing")
