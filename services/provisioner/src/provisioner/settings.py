"""The provisioner's environment."""

from typing import Literal

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    postgres_dsn: str
    nats_url: str
    nats_creds: str | None = None
    """Path of a NATS credentials file."""
    nats_replicas: int = 1
    """Copies of each stream; 3 on a cluster."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """`/metrics`, `/healthz` and `/readyz`; 0 serves none."""
    secret_key: str
    """32 characters or more; engines' keys are derived from it, and credentials wrapped with it. Another one makes
    machines that run unreachable."""
    vllm_version: str | None = None
    """Of new deployments; the newest that there is a list of flags for."""
    vllm_image: str | None = None
    """Of new deployments, by digest; without, the release is installed on the machine."""
    vllm_images: str = ""
    """More images that a deployment may name, separated by commas."""
    sky_api: str = ""
    """URL of a SkyPilot API server of our own; empty: there is no launcher `sky`."""
    local_dir: str = ""
    """Where machines of the launcher `local` are kept; empty: there is no such launcher."""
    local_engine: Literal["simulator", "vllm"] = "simulator"
    local_vllm: str = "vllm"
    """The program, when that is the engine."""
    local_machines: int = 8
    """How many of them there may be."""
    local_lifeline: str = ""
    """A file: once nobody holds a lock on it, local machines end. Empty: they end only when they are taken down."""
    launch_timeout: float = 1800
    """Seconds until a machine must be up."""
    warm_timeout: float = 1800
    """Seconds from then until its engine must have made a token."""
    drain_timeout: float = 900
    """Seconds that requests on a machine that is to go may take to finish."""
