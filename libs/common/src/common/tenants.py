"""What billing asks the gateway, which owns tenants, over request–reply."""

from typing import Literal
from uuid import UUID

import msgspec

PROFILES = "/internal/tenants"
"""Path of the call `Page` in the query → `Profiles`; below it `/{id}`, which gives one `Profile`."""
STANDING = "/internal/tenants/{id}/standing"
"""Path of the call `Standing` → `Profile`."""


class Profile(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    email: str
    plan: str
    status: Literal["active", "suspended"]


class Page(msgspec.Struct, frozen=True):
    after: UUID = UUID(int=0)


class Profiles(msgspec.Struct, frozen=True):
    """In order of id; a page that is empty is the last."""

    tenants: list[Profile]


class Standing(msgspec.Struct, frozen=True):
    paid: bool
    """False suspends the tenant for non-payment; True lifts that, and nothing else."""
