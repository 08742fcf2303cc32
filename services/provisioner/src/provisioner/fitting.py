"""Whether a spec holds together: flags against GPUs, context against memory, image against the allow-list. Pure."""

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from common.deployments import Spec
from common.errors import InvalidRequest
from provisioner import flags, hardware
from provisioner.flags import Flags
from provisioner.hardware import GIB, Gpu

MOST_USD = 10_000_000
UTILIZATION = 0.92
"""vLLM's own default share of a GPU's memory."""


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a spec that does not say gets, and which images one may name."""

    version: str
    image: str | None = None
    """None: the release itself is installed on the machine."""
    images: frozenset[str] = frozenset()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A spec that holds together. `spec` has version and image filled in, so that new defaults change nothing of it."""

    spec: Spec
    flags: Flags

    def parallel(self, accelerator: int) -> dict[str, int]:
        """How the choice of that index spreads over its GPUs."""
        count = _count(self.spec, accelerator)
        return _parallel(self.flags, count)


def checked(spec: Spec, defaults: Defaults) -> Plan:
    """Raises InvalidRequest naming the field."""
    if spec.min_replicas > spec.max_replicas:
        raise InvalidRequest("more than max_replicas", param="min_replicas")
    if spec.on_demand_replicas > spec.max_replicas:
        raise InvalidRequest("more than max_replicas", param="on_demand_replicas")
    for param, usd in (("max_hourly_usd", spec.max_hourly_usd), ("max_monthly_usd", spec.max_monthly_usd)):
        _check_usd(param, usd)
    if not spec.accelerators and spec.launcher != "local":
        raise InvalidRequest("at least one accelerator is needed", param="accelerators")
    spec = msgspec.structs.replace(
        spec, vllm_version=spec.vllm_version or defaults.version, image=spec.image or defaults.image
    )
    assert spec.vllm_version is not None
    if spec.image is not None and spec.image not in defaults.images | {defaults.image}:
        raise InvalidRequest("not among the images that may be run; an operator has to allow it", param="image")
    found = flags.read(spec.vllm_args, flags.table(spec.vllm_version))
    for index in range(len(spec.accelerators)):
        _check_choice(spec, found, index)
    return Plan(spec=spec, flags=found)


def _check_usd(param: str, usd: Decimal | None) -> None:
    if usd is not None and not (usd.is_finite() and 0 < usd <= MOST_USD):
        raise InvalidRequest(f"expected an amount above 0, up to {MOST_USD}", param=param)


def _check_choice(spec: Spec, found: Flags, index: int) -> None:
    param = f"accelerators[{index}]"
    (name, count), *_ = spec.accelerators[index].items()
    gpu = hardware.GPUS.get(name)
    if gpu is None:
        raise InvalidRequest(f"unknown accelerator; known are {', '.join(hardware.GPUS)}", param=param)
    used = 1
    for size in _parallel(found, count).values():
        used *= size
    if used != count:
        raise InvalidRequest(f"the parallel sizes use {used} GPUs, and {name} comes by {count}", param=param)
    for flag in ("--dtype", "--kv-cache-dtype"):
        if found.get(flag) == "bfloat16" and not gpu.bfloat16:
            raise InvalidRequest(f"{flag}=bfloat16 does not work on {name}: use float16", param=_argument(spec, flag))
    _check_memory(spec, found, gpu, index)


def _check_memory(spec: Spec, found: Flags, gpu: Gpu, index: int) -> None:
    model = hardware.model(spec.model)
    if model is None or found.get("--quantization") or found.get("--cpu-offload-gb"):
        return
    (name, count), *_ = spec.accelerators[index].items()
    sizes = _parallel(found, count)
    utilization = found.get("--gpu-memory-utilization", UTILIZATION)
    assert isinstance(utilization, float)
    memory = gpu.memory * GIB * utilization * sizes["--tensor-parallel-size"] * sizes["--pipeline-parallel-size"]
    weights = model.parameters * 1e9 * (4 if found.get("--dtype") in ("float32", "float") else 2)
    if weights >= memory:
        raise InvalidRequest(
            f"the model's weights ({weights / GIB:.0f} GiB) do not fit into {count} × {name}",
            param=f"accelerators[{index}]",
        )
    each = model.kv_bytes(1 if str(found.get("--kv-cache-dtype", "auto")).startswith("fp8") else 2)
    fitting = int((memory - weights) / each)
    context = found.get("--max-model-len", 0)
    assert isinstance(context, int)
    if context > fitting:
        raise InvalidRequest(
            f"--max-model-len={context} needs more memory than {count} × {name} have beside the weights: "
            f"about {fitting} tokens fit",
            param=_argument(spec, "--max-model-len"),
        )


def _parallel(found: Flags, count: int) -> dict[str, int]:
    """All GPUs of a machine, by tensor parallelism where nothing is said."""
    names = ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size")
    sizes = {name: int(value) for name in names if isinstance(value := found.get(name, 1), int)}
    if "--tensor-parallel-size" not in found:
        others = sizes["--pipeline-parallel-size"] * sizes["--data-parallel-size"]
        sizes["--tensor-parallel-size"] = max(count // others, 1)
    return sizes


def _count(spec: Spec, index: int) -> int:
    return next(iter(spec.accelerators[index].values())) if spec.accelerators else 1


def _argument(spec: Spec, name: str) -> str:
    return f"vllm_args[{_index(spec.vllm_args, name)}]"


def _index(arguments: Sequence[str], name: str) -> int:
    return next(index for index, argument in enumerate(arguments) if argument.partition("=")[0] == name)
