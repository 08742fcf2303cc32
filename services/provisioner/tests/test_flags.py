"""vLLM's arguments: exact names and typed values of a list, or refused by name; nothing else can come out."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.deployments import Spec
from common.errors import InvalidRequest
from provisioner import flags
from provisioner.argv import argv
from provisioner.fitting import Defaults, checked

VERSION = "0.32.0"
KNOWN = flags.table(VERSION)
DIGEST = "vllm/vllm-openai@sha256:" + "0a" * 32
DEFAULTS = Defaults(version=VERSION, images=frozenset({DIGEST}))


def a_spec(**fields: Any) -> Spec:
    return msgspec.convert(
        {"name": "a", "model": "org/model", "accelerators": [{"L4": 1}], **fields}, Spec, strict=False
    )


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["--max-model-len=8192"], {"--max-model-len": 8192}),
        (["--dtype=float16", "--enforce-eager"], {"--dtype": "float16", "--enforce-eager": True}),
        (["--no-enable-prefix-caching"], {"--enable-prefix-caching": False}),
        (["--gpu-memory-utilization=0.9"], {"--gpu-memory-utilization": 0.9}),
        (['--limit-mm-per-prompt={"image": 4}'], {"--limit-mm-per-prompt": {"image": 4}}),
        (["--tool-call-parser=hermes"], {"--tool-call-parser": "hermes"}),
    ],
)
def test_what_is_listed_is_read(arguments: list[str], meant: flags.Flags) -> None:
    assert flags.read(arguments, KNOWN) == meant


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("--max-model", "not among the flags"),
        ("--max_model_len=1", "not of the form"),
        ("--trust-rem", "not among the flags"),
        ("--trust-remote-code", "not among the flags"),
        ("--config=x.yaml", "not among the flags"),
        ("--hf-overrides.a.b=1", "not of the form"),
        ("--compilation-config={}", "not among the flags"),
        ("--middleware=os.system", "not among the flags"),
        ("--api-key=x", "not among the flags"),
        ("--port=1", "not among the flags"),
        ("--served-model-name=x", "not among the flags"),
        ("-O3", "not of the form"),
        ("-tp=2", "not of the form"),
        ("--", "not of the form"),
        ("extra.positional", "not of the form"),
        ("--max-model-len", "needs a value"),
        ("--max-model-len=2k", "whole number"),
        ("--max-model-len=-1", "whole number"),
        ("--max-model-len=١٢", "whole number"),
        ("--max-model-len=1\n", "whole number"),
        ("--max-model-len=" + "9" * 400, "whole number"),
        ("--gpu-memory-utilization=nan", "a number from"),
        ("--gpu-memory-utilization=1e-1", "a number from"),
        ("--enforce-eager=true", "takes no value"),
        ("--no-max-model-len=1", "not among the flags"),
        ("--no-no-enforce-eager", "not among the flags"),
        ("--dtype=$(reboot)", "expected one of"),
        ("--tokenizer-revision=a b", "expected a commit"),
        ('--limit-mm-per-prompt={"image": -1}', "JSON object"),
        ('--limit-mm-per-prompt={"im\\u0061ge": 1, "x": 1}', "JSON object"),
        ("--limit-mm-per-prompt=!!python/object:os.system", "JSON object"),
        ("––max-model-len=1", "not of the form"),
        ("--mаx-model-len=1", "not of the form"),
        ("--max-model-len=1\0", "whole number"),
    ],
)
def test_all_else_is_refused_by_name(argument: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as refusal:
        flags.read(["--seed=1", argument], KNOWN)
    assert refusal.value.param == "vllm_args[1]"
    assert refusal.value.message.isascii() or "…" in refusal.value.message
    assert refusal.value.message.isprintable()


@pytest.mark.parametrize("twice", [["--seed=1", "--seed=1"], ["--enforce-eager", "--no-enforce-eager"]])
def test_a_repeat_is_refused(twice: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="is there twice"):
        flags.read(twice, KNOWN)


def _texts(kind: flags.Kind) -> st.SearchStrategy[str]:
    match kind:
        case flags.Integer(least, most):
            return st.integers(least, most).map(str)
        case flags.Fraction(least, most):
            return st.decimals(str(least), str(most), places=4).map(lambda number: f"{number:f}")
        case flags.Choice(choices):
            return st.sampled_from(choices)
        case flags.Revision():
            return st.from_regex(flags.REVISION)
        case flags.Counts(keys, most):
            counts = st.dictionaries(st.sampled_from(keys), st.integers(0, most), min_size=1)
            return counts.map(lambda found: msgspec.json.encode(found).decode())
        case flags.Switch():
            return st.just("")


@st.composite
def accepted(draw: st.DrawFn) -> list[str]:
    """Arguments that should do, and now and then one that should not."""
    arguments = []
    for name in draw(st.lists(st.sampled_from(sorted(KNOWN)), unique=True, max_size=8)):
        kind = KNOWN[name]
        text = draw(st.one_of(_texts(kind), st.text(max_size=20)) if draw(st.booleans()) else _texts(kind))
        off = draw(st.booleans())
        arguments.append((name, f"--no-{name[2:]}")[off] if isinstance(kind, flags.Switch) else f"{name}={text}")
    return arguments + draw(st.lists(st.text(max_size=30), max_size=1))


SAFE = re.compile(r'\A[A-Za-z0-9._:/{}",=-]+\Z')


@given(accepted())
def test_no_accepted_spec_gives_an_argument_outside_the_list(arguments: list[str]) -> None:
    try:
        plan = checked(a_spec(vllm_args=arguments, model="org/model"), DEFAULTS)
    except (InvalidRequest, msgspec.ValidationError):
        return
    command = argv(plan, 0, "0.0.0.0", 8000)
    assert command[:3] == ("vllm", "serve", "org/model")
    own = command[-5:]
    assert [argument.partition("=")[0] for argument in own][-2:] == ["--host", "--port"]
    names = []
    for argument in command[3:]:
        assert SAFE.match(argument)
        name = argument.partition("=")[0]
        names.append(name)
        if argument not in own:
            assert name in KNOWN or f"--{name.removeprefix('--no-')}" in KNOWN
    assert len(set(names)) == len(names)
    meant = flags.read(arguments, KNOWN)
    assert flags.read([a for a in command[3:] if a not in own], KNOWN) == meant  # and it means what it meant
