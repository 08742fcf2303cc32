"""From a spec to SkyPilot's own Task, and to the machine that its own optimizer chooses, with catalogues of ours."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "sky"
IMAGE = "vllm/vllm-openai@sha256:" + "0a" * 32
HOSTILE = '{"image":3,"video":0}'
SPECS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"accelerators": [{"H100": 1}]}, {"cloud": "verda", "region": "FIN-01", "spot": True, "hourly_usd": 0.80}),
    (
        {"accelerators": [{"H100": 1}], "regions": ["ICE-01"]},
        {"cloud": "verda", "region": "ICE-01", "spot": True, "hourly_usd": 0.95},
    ),
    (
        {"accelerators": [{"H100": 1}], "spot": "on_demand"},
        {"cloud": "verda", "region": "FIN-01", "spot": False, "hourly_usd": 2.19},
    ),
    (
        {"accelerators": [{"H100": 1}], "clouds": ["lambda"]},
        {"cloud": "lambda", "region": "us-east-1", "spot": False, "hourly_usd": 2.49},
    ),
    (
        {"accelerators": [{"A10": 1}, {"H100": 1}]},
        {"cloud": "lambda", "region": "us-east-1", "instance_type": "gpu_1x_a10"},
    ),
    ({"accelerators": [{"A100": 1}, {"L40S": 1}]}, {"region": "FIN-01", "instance_type": "1L40S.20V", "spot": True}),
    ({"accelerators": [{"H100": 4}]}, {"instance_type": "4H100.80S.30V", "hourly_usd": 3.2}),
    ({"accelerators": [{"A10": 1}], "spot": "spot"}, {"candidates": 0}),
    ({"accelerators": [{"H100": 2}]}, {"candidates": 0}),
    ({"accelerators": [{"H100": 1}], "clouds": ["aws"]}, {"candidates": 0}),
    (
        {"accelerators": [{"H100": 1}], "vllm_args": [f"--limit-mm-per-prompt={HOSTILE}", "--seed=7"]},
        {"region": "FIN-01"},
    ),
]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What SkyPilot makes of each: in one process, since it takes seconds to import."""
    home = tmp_path_factory.mktemp("home")
    spec = importlib.util.spec_from_file_location("catalogues", HERE / "catalogues.py")
    assert spec is not None
    assert spec.loader is not None
    catalogues = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(catalogues)
    catalogues.write(home)
    done = subprocess.run(
        [sys.executable, str(HERE / "chosen.py")],
        input="\n".join(json.dumps({"name": "a", "model": "org/m", **fields}) for fields, _ in SPECS),
        env={**os.environ, "HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_each_spec_gets_the_machine_that_it_prefers(chosen: list[dict[str, Any]]) -> None:
    assert len(chosen) == len(SPECS)
    for (fields, expected), found in zip(SPECS, chosen, strict=True):
        assert {name: found[name] for name in expected} == expected, fields


def test_what_runs_is_always_the_same_and_only_the_environment_differs(chosen: list[dict[str, Any]]) -> None:
    made = [found for found in chosen if found["candidates"]]
    assert len({found["run"] for found in made}) == len({found["setup"] for found in made}) == 1
    for found in made:
        assert found["secrets"] == ["VLLM_API_KEY"]
        assert found["envs"].keys() == {"VLLM_ARGV_JSON", "VLLM_VERSION"}
        assert json.loads(found["envs"]["VLLM_ARGV_JSON"])[:3] == ["vllm", "serve", "org/m"]
    assert f"--limit-mm-per-prompt={HOSTILE}" in json.loads(made[-1]["envs"]["VLLM_ARGV_JSON"])


def test_the_constant_line_hands_over_exactly_what_the_environment_says(chosen: list[dict[str, Any]]) -> None:
    words = [
        sys.executable,
        "-c",
        "import json, sys; print(json.dumps(sys.argv[1:]))",
        "$(id)",
        "`id`",
        "a\nb",
        "'\"{}",
    ]
    done = subprocess.run(
        ["/bin/sh", "-c", chosen[0]["run"]],
        env={**os.environ, "VLLM_ARGV_JSON": json.dumps(words)},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert json.loads(done.stdout) == words[3:]
