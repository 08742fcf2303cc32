"""A node dies in the middle of a stream: the client sees one uninterrupted stream, and pays for it once."""

from typing import Any

import pytest
import pytest_asyncio
from integration.shop import Shop, cost
from openai import APIError, AsyncOpenAI

import simulator
from stack.fixtures import MakeStack
from stack.stack import Stack

CHAT: Any = [{"role": "user", "content": "Tell of a river, être 川, please."}]
LENGTH = 30
STAYS = {"GATEWAY_BREAKER_FAILURES": "1000", "SCHEDULER_BREAKER_FAILURES": "1000"}
"""A node that loses stream after stream would be left out after a few."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(make_stack_of_module: MakeStack) -> Stack:
    return await make_stack_of_module(service_env=STAYS)


async def read(client: AsyncOpenAI, shop: Shop, **asked: Any) -> tuple[str, str, Any, set[str]]:
    """Text, request id, last usage, the ids that the stream went by."""
    response = await client.chat.completions.with_raw_response.create(
        model=shop.model, messages=CHAT, max_tokens=LENGTH, temperature=0, stream=True,
        stream_options={"include_usage": True}, **asked,
    )  # fmt: skip
    text, usage, ids = "", None, set()
    async for chunk in response.parse():
        ids.add(chunk.id)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
    return text, response.headers["x-request-id"], usage, ids


def lose(shop: Shop, fault: str, after: int) -> None:
    """Whichever engine gets the next request is lost after so many tokens; the other one answers."""
    for engine in shop.engines:
        engine.faults.clear()
        engine.faults.arm(simulator.Fault(fault=fault, after_tokens=after, times=1))


@pytest.mark.parametrize("fault", ["truncate", "reset", "error", "abort"])
async def test_cut_at_any_token_it_reads_as_if_nothing_had_happened(stack: Any, fault: str) -> None:
    async with (
        Shop.open(stack, simulator.Config(token_ms=1, prefill_ms=1), engines=3) as shop,
        AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=60) as client,
    ):
        expected, *_ = await read(client, shop)
        asked = 1
        for after in range(1, LENGTH, 3):
            for engine in shop.engines:
                engine.faults.clear()
            victim = shop.engines[after % 3]
            victim.faults.arm(simulator.Fault(fault=fault, after_tokens=after, times=1))
            for _ in range(30):  # until the victim was chosen
                text, request_id, usage, ids = await read(client, shop)
                asked += 1
                assert text == expected
                assert ids == {f"chatcmpl-{request_id}"}
                assert usage.completion_tokens == LENGTH
                if not victim.faults.faults:
                    break
            assert not victim.faults.faults
            rows = await shop.rows(asked)
            (row,) = [row for row in rows if str(row["id"]) == request_id]
            assert (row["outcome"], row["output_tokens"], row["attempts"]) == ("completed", LENGTH, 2)
            assert row["input_tokens"] == usage.prompt_tokens
            assert int(row["cost_picousd"]) == cost(row)
        assert len(await shop.rows(asked)) == asked


async def test_two_losses_in_one_stream(stack: Any) -> None:
    async with (
        Shop.open(stack, simulator.Config(token_ms=1, prefill_ms=1), engines=3) as shop,
        AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=60) as client,
    ):
        # in turn, so that a stream that begins on the second node is lost there and on the third
        turns = {"model": shop.model, "strategy": "round_robin", "slow_start_s": 0}
        await shop.admin("PUT", "/admin/placements", turns)
        expected, *_ = await read(client, shop)
        losses = 0
        for round in range(2, 12):
            lose(shop, "reset", 4)
            shop.engines[0].faults.clear()
            text, request_id, usage, _ = await read(client, shop)
            assert text == expected
            assert usage.completion_tokens == LENGTH
            rows = await shop.rows(round)
            (row,) = [row for row in rows if str(row["id"]) == request_id]
            assert (row["outcome"], row["output_tokens"]) == ("completed", LENGTH)
            losses = max(losses, row["attempts"] - 1)
            if losses == 2:
                return
        pytest.fail(f"never lost twice: {losses}")


@pytest.mark.parametrize(
    "asked", [{"frequency_penalty": 0.5}, {"logprobs": True}, {"response_format": {"type": "json_object"}}, {"n": 2}]
)
async def test_what_cannot_be_continued_ends_with_an_error_and_is_billed(stack: Any, asked: Any) -> None:
    if "n" in asked:
        asked = {**asked, "seed": 3}
    async with (
        Shop.open(stack, simulator.Config(token_ms=1, prefill_ms=1), engines=2) as shop,
        AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=60) as client,
    ):
        lose(shop, "reset", 2)
        with pytest.raises(APIError) as told:
            async for _ in await client.chat.completions.create(
                model=shop.model, messages=CHAT, max_tokens=LENGTH, temperature=0.7, stream=True, **asked
            ):
                pass
        assert told.value.code == "upstream_error"
        (row,) = await shop.rows(1)
        assert (row["outcome"], row["attempts"]) == ("upstream_lost", 1)
        assert row["output_tokens"] >= 1


async def test_with_no_other_node_the_stream_ends_with_an_error(shop: Shop, client: AsyncOpenAI) -> None:
    shop.engine.faults.arm(simulator.Fault(fault="truncate", after_tokens=6, times=1))
    with pytest.raises(APIError):
        await read(client, shop)
    (row,) = await shop.rows(1)
    assert (row["outcome"], row["output_tokens"]) == ("upstream_lost", 6)


async def asked_until_lost(client: AsyncOpenAI, shop: Shop) -> int:
    """Requests until one was not continued."""
    for asked in range(1, 31):
        try:
            await read(client, shop)
        except APIError:
            return asked
    raise AssertionError("every stream was continued")


@pytest.mark.parametrize("differs", [{"revision": "b"}, {"continuation": False}])
async def test_a_stream_goes_on_only_on_the_same_weights_and_where_it_is_kept(stack: Any, differs: Any) -> None:
    async with (
        Shop.open(stack, simulator.Config(token_ms=1, prefill_ms=1), engines=2) as shop,
        AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=60) as client,
    ):
        first, second = shop.engines
        for engine, asked in ((first, {"revision": "a", **differs}), (second, {"revision": "a"})):
            node = await shop.admin("POST", "/admin/nodes", {"endpoint": engine.url, **asked})
            assert {name: node[name] for name in asked} == asked
        first.faults.arm(simulator.Fault(fault="reset", after_tokens=5, times=1))
        asked = await asked_until_lost(client, shop)
        lost = [row for row in await shop.rows(asked) if row["outcome"] != "completed"]
        assert [(row["outcome"], row["output_tokens"], row["attempts"]) for row in lost] == [("upstream_lost", 5, 1)]
