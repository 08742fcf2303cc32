"""The OpenAPI document is true: fuzzed with it, the API answers documented statuses and shapes, and never a 5xx."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from integration.shop import Shop

import simulator
from stack.stack import Stack

HERE = Path(__file__).parent
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
SECONDS = 25


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    config = simulator.Config(models=(), token_ms=0, prefill_ms=0, everything=True)
    async with Shop.open(stack, config) as shop:
        yield shop


@pytest.mark.parametrize("part", ["v1", "admin"])
async def test_fuzzed_requests_get_documented_answers(shop: Shop, part: str, tmp_path: Path) -> None:
    key = shop.key if part == "v1" else shop.stack.admin_token
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{shop.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {key}", "--include-path-regex", f"^/{part}"),
        *("--checks", CHECKS, "--max-examples", "15", "--seed", "1", "--no-color"),
        *("--workers", "1"),  # with more, CPython 3.11's parser trips over itself in hypothesis
        *("--phases", "examples,coverage,fuzzing", "--max-time", str(SECONDS), "--request-timeout", "10"),
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(HERE), "SERVED_MODEL": shop.model},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    # not the status of the process: hypothesis's own search may break inside schemathesis
    lines = [line for line in said.decode().splitlines() if len(line) < 500]
    assert "Failures:" not in said.decode(), "\n".join(lines[-200:])
    generated = re.search(r"(\d+) generated", said.decode())
    assert generated is not None, "\n".join(lines[-200:])
    assert int(generated[1]) > 200


async def test_the_page_needs_nothing_from_elsewhere(shop: Shop) -> None:
    async with aiohttp.ClientSession(shop.url) as http:
        async with http.get("/docs") as response:
            page = await response.text()
        assert "http" not in page
        for part in page.split('"'):
            if part.startswith("/docs/"):
                async with http.get(part) as response:
                    assert response.status == 200
                    assert await response.read()
        async with http.get("/openapi.json") as response:
            document = await response.json()
    assert "/v1/chat/completions" in document["paths"]
    committed = Path(HERE.parents[1] / "proto-schemas/openapi/gateway.json").read_bytes()
    assert msgspec.json.decode(committed)["paths"].keys() == document["paths"].keys()
