"""What a person sees of a running stack: the banner, then warnings and worse; everything else is in the log files."""

import asyncio
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

PERIOD = 0.25
LOUD = ("warning", "error", "critical")
ALARM = re.compile(r"\[(WRN|ERR|FTL)\]|\b(WARNING|ERROR|FATAL|PANIC):| # ")
"""How NATS, Postgres and Valkey mark what somebody should read."""
SERVERS = ("nats", "postgres", "valkey")


class Line(msgspec.Struct, frozen=True):
    level: str = "info"
    message: str = ""
    exception: str = ""


def banner(gateway_url: str, api_key: str, admin_token: str, models: Sequence[str], folder: Path) -> str:
    model = models[0] if models else "MODEL"
    messages = [{"role": "user", "content": "Hello"}]
    request = {"model": model, "messages": messages, "max_tokens": 40, "stream": True}
    body = shlex.quote(msgspec.json.encode(request).decode())  # engines choose the names of models
    return f"""
  CrossLogic is running. Ctrl-C stops it.

    URL           {gateway_url}/v1
    API key       {api_key}
    admin token   {admin_token}
    models        {", ".join(models) or "none yet: register a node"}
    logs          {folder / "logs"}

  Try it:

curl -N {gateway_url}/v1/chat/completions \\
  -H 'Authorization: Bearer {api_key}' -H 'Content-Type: application/json' \\
  -d {body}

"""


def readable(name: str, line: str) -> str | None:
    """A log line as the console shows it; None if it is not worth a person's attention."""
    if not line.strip():
        return None
    try:
        entry = msgspec.json.decode(line, type=Line)
    except msgspec.MsgspecError:
        quiet = name in SERVERS and not ALARM.search(line)
        return None if quiet else f"{name:<13} {line}"
    if entry.level not in LOUD:
        return None
    return f"{name:<13} {entry.level}: {entry.message}" + (f"\n{entry.exception}" if entry.exception else "")


async def follow(logs: Path) -> None:
    """Print what is written to the log files from now on, forever."""
    ends: dict[Path, int] = {}
    news(logs, ends)
    while True:
        await asyncio.sleep(PERIOD)
        for name, line in news(logs, ends):
            if shown := readable(name, line):
                sys.stderr.write(shown + "\n")


def news(logs: Path, ends: dict[Path, int]) -> list[tuple[str, str]]:
    """The whole lines, each with the name of its process, that were written since `ends`, which is moved on."""
    found: list[tuple[str, str]] = []
    for path in sorted(logs.glob("*.log")):
        with path.open("rb") as file:
            file.seek(ends.get(path, 0))
            text = file.read(1_000_000)
        whole = text[: text.rfind(b"\n") + 1]
        ends[path] = ends.get(path, 0) + len(whole)
        found += [(path.stem, line) for line in whole.decode(errors="replace").splitlines()]
    return found
