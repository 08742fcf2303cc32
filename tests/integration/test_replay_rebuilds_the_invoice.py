"""docs/replay.md, command by command with the real `nats`: a replay changes no total, and one into nothing makes the
same invoice, byte for byte."""

import asyncio
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from integration.shop import Shop
from openai import AsyncOpenAI

from stack import sources
from stack.fixtures import with_database

DOC = Path(__file__).parents[2] / "docs/replay.md"
INSTALLED = Path.home() / ".cache/crosslogic/go/bin"
HELLO: Any = [{"role": "user", "content": "Tell me a story."}]


@pytest.fixture
def tools() -> str:
    """A PATH with `nats` and `crosslogic-billing`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], str(INSTALLED)])
    if not shutil.which("nats", path=path):
        reason = "nats is not installed: go install github.com/nats-io/natscli/nats@v0.5.0"
        if os.environ.get("CROSSLOGIC_CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture
def other_nats(stack_session: Any) -> Iterator[str]:
    with sources.nats_server(*stack_session) as url:
        yield url


@pytest.fixture
async def other_dsn(shop: Shop) -> AsyncIterator[str]:
    connection = await asyncpg.connect(shop.stack.postgres_dsn)
    await connection.execute('create database "rebuilt"')
    yield with_database(shop.stack.postgres_dsn, "rebuilt")
    await connection.execute('drop database "rebuilt" with (force)')
    await connection.close()


def commands() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", DOC.read_text(), re.S | re.M)


def run(command: str, folder: Path, environ: dict[str, str]) -> str:
    """In a terminal, as a reader would; what it printed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    printed = b""
    try:
        while piece := os.read(ours, 65536):
            printed += piece
    except OSError:  # the other side is closed
        pass
    finally:
        os.close(ours)
    try:
        code = process.wait(60)
    finally:
        process.kill()
    text = printed.decode(errors="replace")
    assert code == 0, (command, text)
    return text


async def test_the_page_is_true(
    shop: Shop, client: AsyncOpenAI, tools: str, other_nats: str, other_dsn: str, tmp_path: Path
) -> None:
    await shop.admin("POST", f"/admin/tenants/{shop.tenant_id}/credits", {"amount_usd": "0.00001", "reason": "welcome"})
    for stream in (True, False) * 4:
        answer: Any = await client.chat.completions.create(
            model=shop.model, messages=HELLO, max_tokens=40, stream=stream
        )
        if stream:
            [chunk async for chunk in answer]
    await shop.rows(8)
    month = f"{datetime.now(UTC):%Y-%m}"
    environ = os.environ | {
        "PATH": tools,
        "NATS_URL": shop.stack.nats_url,
        "POSTGRES_DSN": shop.stack.postgres_dsn,
        "OTHER_NATS_URL": other_nats,
        "OTHER_POSTGRES_DSN": other_dsn,
        "TENANT": shop.tenant_id,
        "MONTH": month,
    }
    printed = {block: await asyncio.to_thread(run, block, tmp_path, environ) for block in commands()}

    def of(part: str) -> str:
        (found,) = (text for block, text in printed.items() if part in block)
        return found

    assert of("stream view").count(shop.tenant_id) >= 8
    assert of("--all --terminate-at-end\n").count(f"usage.recorded.v1.{shop.tenant_id}") >= 8
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 8
    replayed = of("replay events.jsonl").split("\r\n")
    assert replayed[:2] == [
        "read 8, new 0, already there 8, parked 0",
        "read 16, new 0, already there 16, parked 0",  # each is on the stream twice by now
    ]
    assert "read 16, new 8, already there 8, parked 0" in of('NATS_URL="$OTHER_NATS_URL"')
    rebuilt = json.loads((tmp_path / "rebuilt.json").read_text())
    assert (rebuilt["requests"], len(rebuilt["adjustments"])) == (8, 1)
    asked = await shop.admin("GET", f"/admin/invoices?tenant_id={shop.tenant_id}&month={month}")
    assert asked["invoices"] == [rebuilt]
