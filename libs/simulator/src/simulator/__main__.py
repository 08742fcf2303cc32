"""`python -m simulator`: one engine, told by its environment what to be."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping

import msgspec
import uvloop

from simulator.app import serve
from simulator.config import Config


def configure(environment: Mapping[str, str]) -> Config:
    """Config from the SIM_* variables; SIM_PORT has no default."""
    given = {name[4:].lower(): value for name, value in environment.items() if name.startswith("SIM_") and value}
    if "port" not in given:
        raise SystemExit("SIM_PORT is not set")
    fields: dict[str, object] = {f.name: given[f.name] for f in msgspec.structs.fields(Config) if f.name in given}
    if "models" in given:
        fields["models"] = [name.strip() for name in given["models"].split(",") if name.strip()]
    try:
        return msgspec.convert(fields, Config, strict=False)
    except msgspec.ValidationError as error:
        raise SystemExit(f"SIM_*: {error}") from error


async def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(config) as simulator:
        sys.stderr.write(f"simulator: {', '.join(config.models)} on {simulator.url}\n")
        await stop.wait()


if __name__ == "__main__":
    uvloop.run(run(configure(os.environ)))
