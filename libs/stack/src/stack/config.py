"""What a stack consists of; as it is by default, the least that answers a request."""

from pathlib import Path

import msgspec

SERVICES = ("scheduler", "billing", "provisioner", "gateway")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    dir: Path | None = None
    """Data, logs, `state.json` and `stack.json`; None: a folder for this run only."""
    port: int = 0
    """Of the gateways. 0 is any free one, here and below."""
    nats_port: int = 0
    postgres_port: int = 0
    redis_port: int = 0
    gateways: int = 1
    replicas: dict[str, int] = {}
    """How many of each of the other services; one where it does not say."""
    engines: tuple[str, ...] = ()
    """URLs of running engines; with none, `simulators` are started."""
    simulators: int = 2
    simulator_settings: dict[str, str | int | float] = {}
    """As in the simulator's Config: `{"token_ms": 2}`."""
    service_env: dict[str, str] = {}
    """For all services, on top of what the stack tells them."""
    services: tuple[str, ...] = SERVICES
    restart: bool = True
    """Start a child that dies again, with the same port and data."""
    durable: bool = False
    """Data must survive the machine; without, only the processes."""
