"""The command of one engine: vLLM's words first, then what the user asked for, then what is ours alone. Pure."""

from provisioner import flags
from provisioner.fitting import Plan

SHUTDOWN_SECONDS = 120
"""What an engine that is told to end may take to finish its streams."""


def argv(plan: Plan, accelerator: int, host: str, port: int) -> tuple[str, ...]:
    """For the choice of that index. The engine's key is not in it: it travels as a secret, in `VLLM_API_KEY`."""
    spec = plan.spec
    assert spec.vllm_version is not None
    known = flags.table(spec.vllm_version)
    parallel = {name: size for name, size in plan.parallel(accelerator).items() if size > 1}
    own = [
        f"--revision={spec.revision}" if spec.revision else "",
        f"--served-model-name={spec.model}",
        "--enable-prompt-tokens-details",  # without it cached tokens are billed as fresh ones
        f"--shutdown-timeout={SHUTDOWN_SECONDS}",
        f"--host={host}",
        f"--port={port}",
    ]
    return (
        "vllm",
        "serve",
        spec.model,
        *flags.written({**plan.flags, **parallel}, known),
        *(argument for argument in own if argument),
    )
