"""An order as SkyPilot's Task: objects and environment only; no text of a user's reaches a shell or a template."""

import msgspec
import sky
from sky import exceptions

from provisioner.argv import argv
from provisioner.launcher import Candidate, Order

PORT = 8000
RUN = (
    'export PATH="$HOME/vllm/bin:$PATH"; exec python3 -c '
    "'import json, os; argv = json.loads(os.environ[\"VLLM_ARGV_JSON\"]); os.execvp(argv[0], argv)'"
)
"""Always the same: what differs is in the environment, where nothing is taken apart or put together."""
SETUP = (
    'command -v uv >/dev/null || python3 -m pip install --quiet --user uv; export PATH="$HOME/.local/bin:$PATH"; '
    'uv venv --quiet --seed --allow-existing --python 3.12 "$HOME/vllm" && '
    'uv pip install --quiet --python "$HOME/vllm/bin/python" "vllm==$VLLM_VERSION"'
)
"""Where no image is given: the release itself."""


def task(order: Order) -> sky.Task:
    spec, candidate = order.plan.spec, order.candidate
    assert spec.vllm_version is not None
    words = argv(order.plan, candidate.choice, "0.0.0.0", PORT)  # noqa: S104  in a machine of its own
    made = sky.Task(
        name=order.cluster,
        setup=None if spec.image else SETUP,
        run=RUN,
        envs={"VLLM_ARGV_JSON": msgspec.json.encode(words).decode(), "VLLM_VERSION": spec.vllm_version},
        secrets={"VLLM_API_KEY": order.key},
    )
    ports = [str(PORT)] if opens_ports(candidate) else None
    made.set_resources(
        sky.Resources(
            infra=f"{candidate.cloud}/{candidate.region}",
            accelerators={candidate.accelerator: candidate.count},
            use_spot=candidate.spot,
            image_id=f"docker:{spec.image}" if spec.image else None,
            ports=ports,
        )
    )
    return made


def opens_ports(candidate: Candidate) -> bool:
    """Some clouds' machines have all their ports open, or a private network; to ask for one there is an error."""
    cloud = sky.CLOUD_REGISTRY.from_str(candidate.cloud)
    assert cloud is not None
    resources = sky.Resources(infra=f"{candidate.cloud}/{candidate.region}", use_spot=candidate.spot)
    try:
        cloud.check_features_are_supported(resources, {sky.clouds.CloudImplementationFeatures.OPEN_PORTS})
    except exceptions.NotSupportedError:
        return False
    return True
