"""Each model's requests go where its policy says, and an operator can ask why."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from integration.shop import Shop, until

import simulator

CONFIG = simulator.Config(token_ms=1, prefill_ms=1)
SYSTEM = {"role": "system", "content": "You answer in verse, and never in prose. " * 20}


def chat(shop: Shop, text: str, **fields: Any) -> dict[str, Any]:
    messages = [SYSTEM, {"role": "user", "content": text}]
    return {"model": shop.model, "messages": messages, "max_tokens": 4, **fields}


async def placed(shop: Shop, **policy: Any) -> None:
    """Once the gateway follows it, and no node starts slowly any more."""
    await shop.admin("PUT", "/admin/placements", {"model": shop.model, "slow_start_s": 0, **policy})

    async def explained() -> Any:
        return (await shop.admin("GET", f"/admin/schedule/explain?model={shop.model}"))["policy"]

    await until(explained, lambda found: found["slow_start_s"] == 0 and policy.items() <= found.items())


async def nodes_of(shop: Shop, count: int) -> Counter[str]:
    return Counter(str(row["node_id"]) for row in await shop.rows(count))


async def test_round_robin_gives_each_node_its_turn(stack: Any) -> None:
    async with Shop.open(stack, CONFIG, engines=3) as shop:
        await placed(shop, strategy="round_robin")
        for number in range(15):
            status, _ = await shop.call("POST", "/v1/chat/completions", chat(shop, f"Tell {number}."))
            assert status == 200
        assert sorted((await nodes_of(shop, 15)).values()) == [5, 5, 5]


async def test_a_beginning_that_is_known_goes_where_it_is_cached(stack: Any) -> None:
    async with Shop.open(stack, CONFIG, engines=3) as shop:
        await placed(shop, strategy="prefix_affinity")
        cached = []
        for number in range(6):
            _, answer = await shop.call("POST", "/v1/chat/completions", chat(shop, f"Tell {number}."))
            cached.append((answer["usage"].get("prompt_tokens_details") or {}).get("cached_tokens", 0))
        assert cached[0] == 0
        assert min(cached[1:]) > 100
        assert len(await nodes_of(shop, 6)) == 1


async def test_a_session_stays_together_and_others_are_spread(stack: Any) -> None:
    async with Shop.open(stack, CONFIG, engines=3) as shop:
        await placed(shop)
        for _ in range(6):
            await shop.call("POST", "/v1/chat/completions", chat(shop, "Tell.", session_id="one"))
        assert len(await nodes_of(shop, 6)) == 1
        for _ in range(24):
            await shop.call("POST", "/v1/chat/completions", chat(shop, "Tell."))
        assert len(await nodes_of(shop, 30)) == 3


async def test_tenants_share_no_prefix_cache(stack: Any) -> None:
    async with Shop.open(stack, CONFIG) as shop:
        other = await shop.admin("POST", "/admin/tenants", {"name": "o", "email": "o@example.com"})
        created = await shop.admin("POST", "/admin/api-keys", {"tenant_id": other["id"], "name": "k"})
        found = []
        for key in (shop.key, shop.key, created["key"]):
            body = chat(shop, "Tell.", cache_salt="that of somebody else")
            _, answer = await shop.call("POST", "/v1/chat/completions", body, key)
            found.append((answer["usage"].get("prompt_tokens_details") or {}).get("cached_tokens", 0))
        assert found[0] == found[2] == 0
        assert found[1] > 100


async def test_why_a_request_goes_where_it_goes(stack: Any) -> None:
    async with Shop.open(stack, CONFIG, engines=2) as shop:
        await placed(shop)
        at_risk = {"endpoint": shop.engines[1].url, "risk": 1, "region": "eu", "max_concurrency": 1}
        await shop.admin("POST", "/admin/nodes", at_risk)
        query = f"/admin/schedule/explain?model={shop.model}&tokens=2048"

        async def told() -> Any:
            return {node["node_id"]: node for node in (await shop.admin("GET", query))["nodes"]}

        nodes = await until(told, lambda nodes: any(node["biases"]["risk"] for node in nodes.values()))
        first, second = (nodes[id] for id in shop.nodes)
        assert (first["score"], second["score"]) == (2, 6)
        assert first["filtered"] is None
        assert (await shop.admin("GET", query))["pick"] == shop.nodes[0]
        # an environment in the region gets the node there all the same, and one that must, no other
        assert (await shop.admin("GET", f"{query}&region=eu"))["pick"] == shop.nodes[1]
        await placed(shop, region="require")
        explained = await shop.admin("GET", f"{query}&region=eu")
        assert {node["node_id"]: node["filtered"] for node in explained["nodes"]} == {
            shop.nodes[0]: "it is in another region",
            shop.nodes[1]: None,
        }
        slow = [chat(shop, "Tell.", max_tokens=2000, ignore_eos=True)] * 2
        tasks = [asyncio.create_task(shop.call("POST", "/v1/chat/completions", body)) for body in slow]

        async def busy() -> Any:
            return [node["live"] for node in (await shop.admin("GET", query))["nodes"]]

        assert sorted(await until(busy, lambda live: sum(live) == 2)) == [0, 2]  # two are less than the risk
        nodes = await told()
        assert nodes[shop.nodes[0]]["pending_tokens"] > 2000
        assert [status for status, _ in await asyncio.gather(*tasks)] == [200, 200]
        await until(busy, lambda live: sum(live) == 0)
        assert [node["pending_tokens"] for node in (await told()).values()] == [0, 0]


async def test_what_must_stay_in_its_region_waits_there(stack: Any) -> None:
    async with Shop.open(stack, CONFIG, engines=2) as shop:
        home, away = shop.engines
        await shop.admin("POST", "/admin/nodes", {"endpoint": home.url, "region": "eu", "max_concurrency": 1})
        await shop.admin("POST", "/admin/nodes", {"endpoint": away.url, "region": "us"})
        await placed(shop, region="require")
        await shop.admin("POST", f"/admin/tenants/{shop.tenant_id}/environments", {"name": "e", "region": "eu"})
        asked = {"tenant_id": shop.tenant_id, "environment": "e", "name": "k"}
        key = (await shop.admin("POST", "/admin/api-keys", asked))["key"]

        async def regions() -> Any:
            explained = await shop.admin("GET", f"/admin/schedule/explain?model={shop.model}&region=eu")
            return [node["region"] for node in explained["nodes"]]

        await until(regions, lambda found: set(found) == {"eu", "us"})
        bodies = [chat(shop, "Tell.", max_tokens=300, ignore_eos=True) for _ in range(4)]
        answers = await asyncio.gather(*(shop.call("POST", "/v1/chat/completions", body, key) for body in bodies))
        assert [status for status, _ in answers] == [200] * 4
        assert await nodes_of(shop, 4) == {shop.nodes[0]: 4}


@pytest.mark.parametrize(
    ("query", "status"), [("", 400), ("?model=unknown", 404), ("?model=demo-8b&tokens=many", 400), ("?model=", 400)]
)
async def test_a_wrong_question_is_refused(stack: Any, query: str, status: int) -> None:
    async with Shop.open(stack, CONFIG) as shop:
        found, _ = await shop.call("GET", f"/admin/schedule/explain{query}", token=stack.admin_token)
        assert found == status
