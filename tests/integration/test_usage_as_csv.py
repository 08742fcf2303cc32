"""Usage as a file has the rows that the API answers, number for number."""

import csv
import io
from collections.abc import AsyncIterator

import aiohttp
import pytest_asyncio
from integration.issuer import Issuer
from integration.shop import Shop

import simulator
from stack.fixtures import MakeStack


@pytest_asyncio.fixture(loop_scope="function")
async def shop(make_stack: MakeStack) -> AsyncIterator[tuple[Shop, str]]:
    async with Issuer.open() as issuer:
        stack = await make_stack(simulators=1, service_env={"OIDC_ISSUERS": issuer.url})
        async with Shop.open(stack, simulator.Config(models=(), token_ms=1, prefill_ms=1)) as shop:
            member = {"email": "viewer@example.com", "role": "viewer"}
            await shop.admin("POST", f"/admin/tenants/{shop.tenant_id}/members", member)
            yield shop, issuer.token("viewer@example.com")


async def test_csv_equals_api(shop: tuple[Shop, str]) -> None:
    at, token = shop
    for _ in range(3):
        body = {"model": at.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
        assert (await at.call("POST", "/v1/chat/completions", body))[0] == 200
    await at.rows(3)
    for group_by in ("", "model", "model,key,environment,day,hour"):
        path = f"/account/tenants/{at.tenant_id}/usage"
        status, answer = await at.call("GET", f"{path}?group_by={group_by}", token=token)
        assert status == 200
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{at.url}{path}.csv?group_by={group_by}") as response,
        ):
            assert (response.status, response.content_type) == (200, "text/csv")
            text = await response.text()
        found = list(csv.DictReader(io.StringIO(text)))
        assert found == [{name: str(value) for name, value in row.items()} for row in answer["rows"]]
        assert len(found) == 1
        assert found[0]["requests"] == "3"
        refused, _ = await at.call("GET", f"{path}.csv?group_by=nonsense", token=token)
        assert refused == 400
