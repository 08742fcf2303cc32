"""vLLM's own argument parser makes of what we write what we meant by it, and nothing else."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from common.deployments import Spec
from provisioner import flags
from provisioner.argv import argv
from provisioner.fitting import Defaults, checked

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("engine")]
VERSION = "0.32.0"
KNOWN = flags.table(VERSION)
OWN = {
    "model_tag": "org/model",
    "served_model_name": ["org/model"],
    "revision": "v1",
    "enable_prompt_tokens_details": True,
    "shutdown_timeout": 120,
    "host": "0.0.0.0",
    "port": 8000,
}


def examples(name: str, kind: flags.Kind) -> list[str]:
    match kind:
        case flags.Integer(least, most):
            return [f"{name}={least}", f"{name}={most}"]
        case flags.Fraction(least, most):
            return [f"{name}={least}", f"{name}={most}", f"{name}=0.5"]
        case flags.Choice(choices):
            return [f"{name}={choice}" for choice in choices]
        case flags.Switch():
            return [name, f"--no-{name[2:]}"]
        case flags.Revision():
            return [f"{name}=0123abcd"]
        case flags.Counts():
            return [f'{name}={{"image":2,"video":0}}']


def command(*arguments: str) -> tuple[list[str], flags.Flags]:
    spec = Spec(name="a", model="org/model", revision="v1", launcher="local", vllm_args=arguments)
    plan = checked(spec, Defaults(version=VERSION))
    return list(argv(plan, 0, "0.0.0.0", 8000)), plan.flags


def test_the_real_parser_makes_of_each_flag_what_we_meant() -> None:
    written = [command(), *(command(example) for name, kind in KNOWN.items() for example in examples(name, kind))]
    script = Path(__file__).with_name("parsed.py")
    done = subprocess.run(
        [os.environ["ENGINE_HOME"] + "/bin/python", "-P", str(script)],
        input="\n".join(json.dumps(words) for words, _ in written),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    made: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(made) == len(written) > 150
    plain = made[0]
    assert OWN.items() <= plain.items()
    for (words, meant), parsed in zip(written[1:], made[1:], strict=True):
        (name, value), *_ = meant.items()
        expected = {**plain, name[2:].replace("-", "_"): value}
        assert {k: _plain(v) for k, v in parsed.items()} == {k: _plain(v) for k, v in expected.items()}, words


def _plain(value: Any) -> Any:
    """A number given as one of several choices is a text to us and a number to vLLM."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value
