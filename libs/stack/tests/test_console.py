"""What is worth a person's attention, and a command that can be pasted."""

import shlex
from pathlib import Path

import msgspec
import pytest

from stack.console import banner, news, readable


@pytest.mark.parametrize(
    ("name", "line", "shown"),
    [
        ("gateway-0", '{"level":"info","message":"listening"}', None),
        ("gateway-0", '{"level":"warning","message":"slow"}', "gateway-0     warning: slow"),
        ("gateway-0", '{"level":"error","message":"no","exception":"Trace"}', "gateway-0     error: no\nTrace"),
        ("gateway-0", "Traceback (most recent call last):", "gateway-0     Traceback (most recent call last):"),
        ("gateway-0", "", None),
        ("nats", "[1] 2026/01/01 [INF] Server is ready", None),
        ("nats", "[1] 2026/01/01 [ERR] no space", "nats          [1] 2026/01/01 [ERR] no space"),
        ("postgres", "2026-01-01 UTC [1] LOG:  ready", None),
        ("postgres", "2026-01-01 UTC [1] FATAL:  no", "postgres      2026-01-01 UTC [1] FATAL:  no"),
        ("valkey", "1:M 01 Jan 2026 * Ready", None),
        ("valkey", "1:M 01 Jan 2026 # Out of memory", "valkey        1:M 01 Jan 2026 # Out of memory"),
    ],
)
def test_only_warnings_and_worse_are_shown(name: str, line: str, shown: str | None) -> None:
    assert readable(name, line) == shown


def test_the_printed_command_can_be_pasted_whatever_the_model_is_called() -> None:
    model = 'it\'s; $(a) "model"'
    words = shlex.split(banner("http://g", "key", "token", [model], Path("x")).partition("Try it:")[2])
    assert msgspec.json.decode(words[words.index("-d") + 1])["model"] == model


def test_a_line_is_shown_once_it_is_whole(tmp_path: Path) -> None:
    log, ends = tmp_path / "gateway-0.log", dict[Path, int]()
    log.write_text("one\ntw")
    assert news(tmp_path, ends) == [("gateway-0", "one")]
    log.write_text("one\ntwo\n")
    assert news(tmp_path, ends) == [("gateway-0", "two")]
