"""A change of some fields: absent is as it was, null is cleared. Pure."""

from typing import TypeVar

import msgspec
from msgspec import UNSET

S = TypeVar("S", bound=msgspec.Struct)


def changed(known: S, change: msgspec.Struct) -> S:
    """`known` with every field that `change` sets."""
    fields = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
    return msgspec.structs.replace(known, **fields)
