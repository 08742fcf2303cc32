"""Servers in containers, for tests on a platform that the embedded ones are not built for."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from stack.process import StartFailed


class Image(msgspec.Struct, frozen=True):
    name: str
    port: int
    url: str
    """With `{host}`, `{port}` and `{password}`."""
    env: dict[str, str] = {}
    """Values may hold `{password}`."""
    command: str = ""
    """May hold `{password}`."""


POSTGRES = Image(
    "postgres:18-alpine", 5432, "postgresql://app:{password}@{host}:{port}/postgres",
    {"POSTGRES_USER": "app", "POSTGRES_DB": "postgres", "POSTGRES_PASSWORD": "{password}"},
)  # fmt: skip
NATS = Image("nats:2.12-alpine", 4222, "nats://{host}:{port}", command="-js")
VALKEY = Image(
    "valkey/valkey:9-alpine", 6379, "redis://:{password}@{host}:{port}/0",
    command="valkey-server --maxmemory-policy noeviction --requirepass {password}",
)  # fmt: skip


@contextmanager
def running(image: Image) -> Iterator[str]:
    """The URL of a container that listens soon. Raises StartFailed: no daemon answers, or it has not the image."""
    refuse_unless_present(image)
    # only here: a development dependency, for this rare case alone
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    testcontainers_config.ryuk_disabled = True  # its reaper is an image that would have to be pulled
    password = secrets.token_urlsafe(24)
    env = {name: value.format(password=password) for name, value in image.env.items()}
    command = image.command.format(password=password) or None
    with DockerContainer(image.name, command=command, env=env, ports=[image.port]) as container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(image.port)
        yield image.url.format(host=host, port=port, password=password)


def refuse_unless_present(image: Image) -> None:
    """A pull in the middle of tests would look like a hang, so the image must be there. Raises StartFailed."""
    try:
        asked = subprocess.run(  # noqa: S603  no shell
            ["docker", "image", "inspect", image.name],  # noqa: S607  whichever docker the user has
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartFailed(f"no docker answers ({error}), so {image.name} cannot be used instead") from error
    if asked.returncode != 0:
        raise StartFailed(f"docker cannot be used instead: {asked.stderr.decode(errors='replace').strip()}")
