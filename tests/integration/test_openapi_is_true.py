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
import pytest_asyncio
from integration.issuer import Issuer
from integration.shop import Shop

import simulator
from stack.fixtures import MakeStack
from stack.stack import Stack

HERE = Path(__file__).parent
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
SECONDS = 20
OWNER = "owner@fuzz.example"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer.open() as issuer:
        yield issuer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: MakeStack, issuer: Issuer) -> Stack:
    return await make_stack_of_module(simulators=0, service_env={"OIDC_ISSUERS": issuer.url})


@pytest_asyncio.fixture(loop_scope="module")
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    config = simulator.Config(models=(), token_ms=0, prefill_ms=0, everything=True)
    async with Shop.open(stack, config) as shop:
        yield shop


@pytest.mark.parametrize("part", ["v1", "admin", "account"])
async def test_fuzzed_requests_get_documented_answers(shop: Shop, issuer: Issuer, part: str, tmp_path: Path) -> None:
    await shop.admin("POST", f"/admin/tenants/{shop.tenant_id}/members", {"email": OWNER, "role": "owner"})
    keys = {"v1": shop.key, "admin": shop.stack.admin_token, "account": issuer.token(OWNER)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{shop.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {keys[part]}", "--include-path-regex", f"^/{part}"),
        *("--checks", CHECKS, "--max-examples", "15", "--seed", "1", "--no-color"),
        *("--workers", "1"),  # with more, CPython 3.11's parser trips over itself in hypothesis
        *("--phases", "examples,coverage,fuzzing", "--max-time", str(SECONDS), "--request-timeout", "10"),
        cwd=tmp_path,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "openapi_hooks",
            "PYTHONPATH": str(HERE),
            "SERVED_MODEL": shop.model,
            "TENANT": shop.tenant_id,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    # not the status of the process: hypothesis's own search may break inside schemathesis
    lines = [line for line in said.decode().splitlines() if len(line) < 500]
    assert "Failures:" not in said.decode(), "\n".join(lines[-200:])
    generated = re.search(r"(\d+) generated", said.decode())
    assert generated is not None, "\n".join(lines[-200:])
    assert int(generated[1]) > 100, "\n".join(lines[-60:])


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
