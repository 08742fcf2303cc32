"""What may be said to vLLM: exact full names with typed values, from a list a version. Pure.

vLLM's own parser takes abbreviations, `_` for `-`, dotted keys into JSON options, bare words and files of arguments; so
nothing that a user writes reaches it. Their arguments are read here into (name, value), and written anew.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from common.errors import InvalidRequest

Value: TypeAlias = int | float | str | bool | dict[str, int]
NAME = re.compile(r"\A--[a-z0-9]+(-[a-z0-9]+)*\Z")
INTEGER = re.compile(r"\A(?:0|[1-9][0-9]{0,11})\Z")
FRACTION = re.compile(r"\A(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,6})?\Z")
REVISION = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class Integer(msgspec.Struct, frozen=True, tag_field="kind", tag="integer"):
    least: int
    most: int


class Fraction(msgspec.Struct, frozen=True, tag_field="kind", tag="fraction"):
    least: float
    most: float


class Choice(msgspec.Struct, frozen=True, tag_field="kind", tag="choice"):
    choices: tuple[str, ...]


class Switch(msgspec.Struct, frozen=True, tag_field="kind", tag="switch"):
    """`--name` or `--no-name`."""


class Revision(msgspec.Struct, frozen=True, tag_field="kind", tag="revision"):
    """A commit, tag or branch of the model's repository."""


class Counts(msgspec.Struct, frozen=True, tag_field="kind", tag="counts"):
    """A JSON object of numbers, `{"image": 4}`."""

    keys: tuple[Annotated[str, Meta(pattern=r"\A[a-z]+\Z")], ...]
    most: int


Kind: TypeAlias = Integer | Fraction | Choice | Switch | Revision | Counts
Table: TypeAlias = dict[str, Kind]
Flags: TypeAlias = dict[str, Value]
"""Full name without `no-` → value."""


@cache
def versions() -> tuple[str, ...]:
    """Of vLLM, that there is a list for; the newest last."""
    found = [entry.name.removesuffix(".json") for entry in (files("provisioner") / "engines").iterdir()]
    return tuple(sorted(found, key=lambda version: [int(part) for part in version.split(".")]))


@cache
def table(version: str) -> Table:
    """Raises InvalidRequest for a version that there is no list for."""
    if version not in versions():
        raise InvalidRequest(f"unknown version; known are {', '.join(versions())}", param="vllm_version")
    return msgspec.json.decode((files("provisioner") / "engines" / f"{version}.json").read_bytes(), type=Table)


def read(arguments: Sequence[str], known: Table) -> Flags:
    """Raises InvalidRequest that names the argument and says what is wrong with it."""
    found: Flags = {}
    for index, argument in enumerate(arguments):
        param = f"vllm_args[{index}]"
        name, is_assigned, text = argument.partition("=")
        if not NAME.match(name):
            raise InvalidRequest(f"{shown(argument)} is not of the form --name=value", param=param)
        positive = f"--{name.removeprefix('--no-')}" if name.startswith("--no-") else name
        kind = known.get(name) or known.get(positive)
        if kind is None or (positive != name and name not in known and not isinstance(kind, Switch)):
            raise InvalidRequest(f"{shown(name)} is not among the flags that may be set", param=param)
        if name in known:
            positive = name
        if positive in found:
            raise InvalidRequest(f"{name} is there twice", param=param)
        if isinstance(kind, Switch) == bool(is_assigned):
            form = f"{name} takes no value" if is_assigned else f"{name} needs a value: {name}=…"
            raise InvalidRequest(form, param=param)
        try:
            found[positive] = positive == name if isinstance(kind, Switch) else value(text, kind)
        except ValueError as error:
            raise InvalidRequest(f"{name}: {error}", param=param) from error
    return found


def value(text: str, kind: Kind) -> Value:
    """Raises ValueError with what was expected."""
    match kind:
        case Integer(least, most):
            if not INTEGER.match(text) or not least <= int(text) <= most:
                raise ValueError(f"expected a whole number from {least} to {most}")
            return int(text)
        case Fraction(least, most):
            if not FRACTION.match(text) or not least <= float(text) <= most:
                raise ValueError(f"expected a number from {least} to {most}")
            return float(text)
        case Choice(choices):
            if text not in choices:
                raise ValueError(f"expected one of {', '.join(choices)}")
            return text
        case Revision():
            if not REVISION.match(text):
                raise ValueError("expected a commit, tag or branch")
            return text
        case Counts(keys, most):
            return _counts(text, keys, most)
        case Switch():
            raise ValueError("takes no value")


def written(flags: Flags, known: Table) -> list[str]:
    """`--name=value` in the order of the list."""
    return [_written(name, flags[name]) for name in known if name in flags]


def shown(text: str) -> str:
    """What a user wrote, as it can stand in a message."""
    return ascii(text[:60]) + ("…" if len(text) > 60 else "")


def _counts(text: str, keys: Sequence[str], most: int) -> dict[str, int]:
    expected = f"expected a JSON object of {', '.join(keys)}, each from 0 to {most}"
    try:
        found = msgspec.json.decode(text, type=dict[str, int])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ValueError(expected) from error
    if not found or not found.keys() <= set(keys) or not all(0 <= number <= most for number in found.values()):
        raise ValueError(expected)
    return found


def _written(name: str, value: Value) -> str:
    if value is True:
        return name
    if value is False:
        return f"--no-{name.removeprefix('--')}"
    if isinstance(value, dict):
        return f"{name}={msgspec.json.encode(value, order='sorted').decode()}"
    return f"{name}={value}"
