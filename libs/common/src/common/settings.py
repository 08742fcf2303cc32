"""The environment, read once at boot into one frozen Struct."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from common.errors import SettingsError

S = TypeVar("S", bound=msgspec.Struct)


def load(kind: type[S], environ: Mapping[str, str], prefix: str) -> S:
    """Read `kind` from `environ`: the field `lease_ttl` of prefix `gateway` is `GATEWAY_LEASE_TTL`, else `LEASE_TTL`.

    An empty value counts as unset. Raises SettingsError naming every variable that is missing or wrong; values are
    never repeated in the message, since they may be secrets.
    """
    found: dict[str, object] = {}
    problems: list[str] = []
    for field in msgspec.structs.fields(kind):
        names = (f"{prefix}_{field.encode_name}".upper(), field.encode_name.upper())
        text = next((environ[name] for name in names if environ.get(name)), None)
        if text is None:
            if field.required:
                problems.append(f"{names[1]} is not set")
            continue
        try:
            found[field.name] = msgspec.convert(text, field.type, strict=False)
        except msgspec.ValidationError as error:
            problems.append(f"{names[1]} is not valid: {_without_value(str(error))}")
    if problems:
        raise SettingsError("; ".join(problems))
    return kind(**found)


def _without_value(message: str) -> str:
    return message.split(", got")[0]
