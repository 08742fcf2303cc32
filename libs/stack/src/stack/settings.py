"""The environment of `make run`."""

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    port: int = 8080
    """Of the gateway; all ports of 0 are any free one."""
    nats_port: int = 0
    postgres_port: int = 0
    redis_port: int = 0
    gateways: int = 1
    """Gateway processes behind the one port."""
    engines: str = ""
    """URLs of running engines, separated by commas; none: two simulated ones, told by SIM_* what to be."""
    local_dir: str = ".local"
    """Data, logs, and the files with the secrets of this stack."""
