"""The two files of a stack: what it remembers between runs, and what it tells while it runs. Both are secrets."""

import os
import secrets
from pathlib import Path

import msgspec


class State(msgspec.Struct, frozen=True, kw_only=True):
    """`state.json`."""

    admin_token: str
    provisioner_secret: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(36))
    """What the keys of engines that the provisioner starts are derived from."""
    tenant_id: str = ""
    api_key: str = ""
    priced: frozenset[str] = frozenset()
    """Models that have had their demo price; it is never set again, since an operator may have changed it."""
    nodes: dict[str, str] = {}
    """Engine URL to node id, of the nodes that a stack registered."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """`stack.json`, as the contract has it."""

    gateway_url: str
    dashboard_url: str | None
    admin_token: str
    api_key: str
    tenant_id: str
    nats_url: str
    postgres_dsn: str
    redis_url: str
    processes: dict[str, list[int]]


def recall(path: Path) -> State:
    """The state of the last run, or a new one with an admin token."""
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=State)
    state = State(admin_token=secrets.token_urlsafe(36))
    write(path, state)
    return state


def write(path: Path, value: State | Running) -> None:
    """Whole or not at all, and nobody else's to read."""
    partial = path.with_suffix(".new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
    partial.replace(path)
