"""The commands that run our own processes: services by `python -m`, told all they need by their environment."""

import sys
from collections.abc import Mapping
from pathlib import Path

from stack.ports import Port
from stack.process import Command, http_ok


def service(name: str, index: int, metrics: Port, env: Mapping[str, str]) -> Command:
    """One process of a service; ready when its internal port says so."""
    return Command(
        name=f"{name}-{index}",
        argv=(sys.executable, "-m", name),
        ready=lambda: http_ok(metrics.number, "/readyz"),
        env={**env, f"{name.upper()}_METRICS_HOST": "127.0.0.1", f"{name.upper()}_METRICS_PORT": str(metrics.number)},
    )


def gateway(index: int, public: Port, metrics: Port, spool: Path, env: Mapping[str, str]) -> Command:
    """One of the gateways that share the public port."""
    # who calls from this machine, as the dashboard does, tells for whom
    env = {"GATEWAY_TRUSTED_PROXIES": "127.0.0.0/8,::1/128", **env}
    own = {"GATEWAY_HOST": "127.0.0.1", "GATEWAY_PORT": str(public.number), "GATEWAY_SPOOL_DIR": str(spool)}
    return service("gateway", index, metrics, {**env, **own})


def simulator(index: int, port: Port, settings: Mapping[str, object]) -> Command:
    """An engine for those who have none; `settings` are its SIM_* variables in lower case without SIM_."""
    env = {f"SIM_{name.upper()}": str(value) for name, value in settings.items()}
    return Command(
        name=f"simulator-{index}",
        argv=(sys.executable, "-m", "simulator"),
        ready=lambda: http_ok(port.number, "/health"),
        env={**env, "SIM_HOST": "127.0.0.1", "SIM_PORT": str(port.number)},
        stop_seconds=3,
    )
