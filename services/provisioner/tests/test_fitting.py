"""A spec that does not hold together is refused by the field's name; a hostile one never gets in."""

from typing import Any

import msgspec
import pytest

from common.deployments import Spec
from common.errors import InvalidRequest, invalid
from provisioner.argv import argv
from provisioner.fitting import Defaults, Plan, checked

DIGEST = "vllm/vllm-openai@sha256:" + "0a" * 32
DEFAULTS = Defaults(version="0.32.0", images=frozenset({DIGEST}))
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def a_spec(**fields: Any) -> Spec:
    given = {"name": "a", "model": "org/model", "accelerators": [{"L4": 1}], **fields}
    return msgspec.convert(given, Spec, strict=False)


def taken(body: bytes) -> Plan:
    """As at the door: from bytes, every refusal of one kind."""
    try:
        return checked(msgspec.json.decode(body, type=Spec), DEFAULTS)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"min_replicas": 2}, "min_replicas", "more than max_replicas"),
        ({"on_demand_replicas": 2}, "on_demand_replicas", "more than max_replicas"),
        ({"accelerators": []}, "accelerators", "at least one"),
        ({"accelerators": [{"L4": 1}, {"Z80": 1}]}, "accelerators[1]", "unknown accelerator"),
        ({"max_hourly_usd": "NaN"}, "max_hourly_usd", "above 0"),
        ({"max_hourly_usd": "0"}, "max_hourly_usd", "above 0"),
        ({"max_monthly_usd": "Infinity"}, "max_monthly_usd", "above 0"),
        ({"vllm_version": "0.2.7"}, "vllm_version", "known are 0.32.0"),
        ({"image": DIGEST.replace("0a", "0b")}, "image", "an operator has to allow it"),
        ({"accelerators": [{"T4": 1}], "vllm_args": ["--seed=1", "--dtype=bfloat16"]}, "vllm_args[1]", "use float16"),
        ({"vllm_args": ["--tensor-parallel-size=2"]}, "accelerators[0]", "use 2 GPUs, and L4 comes by 1"),
        ({"accelerators": [{"L4": 4}], "vllm_args": ["--data-parallel-size=3"]}, "accelerators[0]", "use 3 GPUs"),
        ({"model": "meta-llama/Llama-3.1-70B-Instruct"}, "accelerators[0]", "weights .132 GiB. do not fit into 1 × L4"),
        ({"model": LLAMA, "vllm_args": ["--max-model-len=131072"]}, "vllm_args[0]", "about 5[0-9]{4} tokens fit"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(fields: dict[str, Any], param: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as refusal:
        checked(a_spec(**fields), DEFAULTS)
    assert refusal.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"model": LLAMA, "vllm_args": ["--max-model-len=8192"]},
        {"model": LLAMA, "accelerators": [{"H100": 1}], "vllm_args": ["--max-model-len=131072"]},
        {"model": "meta-llama/Llama-3.1-70B-Instruct", "accelerators": [{"H100": 4}]},
        {"model": "meta-llama/Llama-3.1-70B-Instruct-AWQ"},
        {"accelerators": [{"T4": 1}], "vllm_args": ["--dtype=float16"]},
        {"accelerators": [], "launcher": "local"},
        {"image": DIGEST},
    ],
)
def test_what_fits_is_taken(fields: dict[str, Any]) -> None:
    assert checked(a_spec(**fields), DEFAULTS).spec.vllm_version == DEFAULTS.version


@pytest.mark.parametrize(
    ("accelerator", "arguments", "expected"),
    [
        ({"L4": 1}, [], []),
        ({"L4": 4}, [], ["--tensor-parallel-size=4"]),
        ({"L4": 4}, ["--pipeline-parallel-size=2"], ["--tensor-parallel-size=2", "--pipeline-parallel-size=2"]),
        ({"L4": 4}, ["--seed=7", "--dtype=half"], ["--dtype=half", "--tensor-parallel-size=4", "--seed=7"]),
    ],
)
def test_the_command_is_in_our_order_with_our_words_last(
    accelerator: dict[str, int], arguments: list[str], expected: list[str]
) -> None:
    plan = checked(a_spec(accelerators=[accelerator], vllm_args=arguments, revision="main"), DEFAULTS)
    assert argv(plan, 0, "0.0.0.0", 8000) == (
        *("vllm", "serve", "org/model", *expected, "--revision=main", "--served-model-name=org/model"),
        *("--enable-prompt-tokens-details", "--shutdown-timeout=120", "--host=0.0.0.0", "--port=8000"),
    )


HOSTILE = [
    *("'", '"', "`id`", "$(id)", "${IFS}", "a;b", "a|b", "a&b", "a\nb", "a\n", "\na", "a\r\nimage: x", "a\0", "\0"),
    *("..", "../x", "/etc/passwd", "a//b", "a/b/c", "-a", "--port=1", "a b", " a", "a\t", "{{ a }}", "{% a %}", "%s"),
    *("!!python/object/apply:os.system [id]", "&a [*a]", "*a", "? a", "a: b", "# a", "|", ">-", "~", "null\n"),
    *(
        "аdmin",
        "ａ",
        "a\u200b",
        "\u202ea",
        "a\u0301",
        "ⅷ",
        "１",
        "\ud800".encode("utf-16", "surrogatepass").hex() + "\x7f",
    ),
    *(
        "a" * 10_000,
        "é" * 10_000,
        "",
        "<script>",
        "file:///etc/passwd",
        "http://169.254.169.254/",
        "a@sha256:" + "0" * 63,
    ),
]
FIELDS = ["name", "model", "revision", "image", "vllm_version", "clouds", "regions", "accelerators", "spot", "launcher"]


@pytest.mark.parametrize("field", FIELDS)
def test_hostile_texts_are_refused_by_name_in_every_field(field: str) -> None:
    for text in HOSTILE:
        if field in ("name", "model") and text == "null\n":
            continue
        value: Any = {"clouds": [text], "regions": [text], "accelerators": [{text: 1}]}.get(field, text)
        body = msgspec.json.encode({"name": "a", "model": "m", "accelerators": [{"L4": 1}], field: value})
        with pytest.raises(InvalidRequest) as refusal:
            taken(body)
        assert (refusal.value.param or "").startswith(field), (text, refusal.value)
        assert len(refusal.value.message) < 500


def test_hostile_arguments_are_refused_by_name() -> None:
    for text in HOSTILE:
        for argument in (text, f"--dtype={text}", f"--{text}=1", f"--tokenizer-revision={text}\n"):
            with pytest.raises((InvalidRequest, msgspec.ValidationError)) as refusal:
                checked(a_spec(vllm_args=[argument]), DEFAULTS)
            assert "vllm_args[0]" in str(getattr(refusal.value, "param", refusal.value)), argument
