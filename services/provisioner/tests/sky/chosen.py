"""Run with a HOME that has catalogues: specs as JSON lines on stdin → what SkyPilot chooses for each, on stdout.

A process of its own, since SkyPilot reads HOME when it is imported, and stays in a process's memory for good.
"""

import sys
from typing import Any

import msgspec
import sky
from sky import catalog, check, optimizer

from common.deployments import Spec
from provisioner.choosing import ordered
from provisioner.cloud import offered
from provisioner.fitting import Defaults, checked
from provisioner.launcher import Order
from provisioner.task import task

IMAGE = "vllm/vllm-openai@sha256:" + "0a" * 32


def chosen(spec: Spec) -> dict[str, Any]:
    plan = checked(spec, Defaults(version="0.32.0", images=frozenset({IMAGE})))
    candidates = []
    for choice, accelerator in enumerate(spec.accelerators):
        (name, count), *_ = accelerator.items()
        infos = catalog.list_accelerators(name_filter=f"^{name}$", clouds=["verda", "lambda"], all_regions=True)
        candidates += offered(choice, name, count, [info for listed in infos.values() for info in listed])
    candidates = ordered(spec, candidates)
    if not candidates:
        return {"candidates": 0}
    made = task(Order(cluster="cl-1", plan=plan, candidate=candidates[0], key="sk-secret"))
    with sky.Dag() as dag:
        dag.add(made)
    optimizer.Optimizer.optimize(dag, quiet=True)
    best = made.best_resources
    return {
        "candidates": len(candidates),
        "first": msgspec.to_builtins(candidates[0]),
        "cloud": str(best.cloud).lower(),
        "region": best.region,
        "instance_type": best.instance_type,
        "spot": best.use_spot,
        "hourly_usd": best.get_cost(3600),
        "image": best.image_id,
        "ports": best.ports,
        "run": made.run,
        "setup": made.setup,
        "envs": made.envs,
        "secrets": sorted(made.secrets),
        "shown": str(made.to_yaml_config(use_user_specified_yaml=False)),
    }


if __name__ == "__main__":
    check.get_cached_enabled_clouds_or_refresh = lambda *_, **__: [sky.clouds.Verda(), sky.clouds.Lambda()]
    for line in sys.stdin:
        print(msgspec.json.encode(chosen(msgspec.json.decode(line, type=Spec))).decode(), flush=True)
