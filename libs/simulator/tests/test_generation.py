"""Text depends on what came before it and on nothing else."""

import json

import aiohttp
import pytest

from simulator import Config, serve

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def ask(**fields):
    return {"messages": [{"role": "user", "content": "Hello, world!"}], "temperature": 0} | fields


async def events(http, path, body, **kwargs):
    async with http.post(path, json=body, **kwargs) as response:
        assert response.status == 200
        lines = (await response.text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


async def test_continuing_by_token_ids_elsewhere_gives_the_same_text(config):
    total = 60
    async with serve(config) as one, serve(config) as other:
        async with aiohttp.ClientSession(one.url) as http:
            chunks = await events(http, CHAT, ask(max_tokens=total, stream=True, return_token_ids=True))
        prompt = chunks[0]["prompt_token_ids"]
        steps = [(c["choices"][0]["delta"].get("content", ""), c["choices"][0]["token_ids"]) for c in chunks[1:]]
        assert len(steps) == total
        assert any(text == "" for text, _ in steps), "no held-back character in this text: choose another prompt"
        async with aiohttp.ClientSession(other.url) as http:
            for cut in range(1, total):
                if steps[cut - 1][0] == "":
                    continue  # where a character is under way, one resumes after the last text that was not empty
                ids = [i for _, step in steps[:cut] for i in step]
                body = {"prompt": prompt + ids, "max_tokens": total - cut, "temperature": 0, "return_token_ids": True}
                async with http.post(COMPLETIONS, json=body) as response:
                    choice = (await response.json())["choices"][0]
                assert choice["token_ids"] == [i for _, step in steps[cut:] for i in step]
                assert choice["text"] == "".join(text for text, _ in steps[cut:])


async def test_prompt_that_ends_inside_a_character_begins_with_garbage(http):
    chunks = await events(http, CHAT, ask(max_tokens=60, stream=True, return_token_ids=True))
    cut = next(i for i, c in enumerate(chunks) if i and c["choices"][0]["delta"]["content"] == "")
    ids = [i for c in chunks[1 : cut + 1] for i in c["choices"][0]["token_ids"]]
    body = {"prompt": chunks[0]["prompt_token_ids"] + ids, "max_tokens": 1, "temperature": 0}
    async with http.post(COMPLETIONS, json=body) as response:
        assert "\ufffd" in (await response.json())["choices"][0]["text"]


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
async def test_penalties_do_not_carry_over(penalty, http):
    total = 200
    async with http.post(CHAT, json=ask(max_tokens=total, return_token_ids=True, **{penalty: 2.0})) as response:
        whole = await response.json()
    ids = whole["choices"][0]["token_ids"]
    body = {"prompt": whole["prompt_token_ids"] + ids[:100], "max_tokens": 100, "temperature": 0, penalty: 2.0}
    async with http.post(COMPLETIONS, json=body | {"return_token_ids": True}) as response:
        assert (await response.json())["choices"][0]["token_ids"] != ids[100:]


async def test_seed_and_model_change_the_text():
    texts = set()
    async with (
        serve(Config(models=("a/b", "c"), token_ms=0, prefill_ms=0)) as sim,
        aiohttp.ClientSession(sim.url) as http,
    ):
        for fields in ({}, {"model": "c"}, {"temperature": 1}, {"temperature": 1, "seed": 1}):
            for _ in range(2):
                async with http.post(CHAT, json=ask(max_tokens=8, **fields)) as response:
                    texts.add((await response.json())["choices"][0]["message"]["content"])
    assert len(texts) == 4


async def test_choices_count_the_prompt_once(http):
    chunks = await events(
        http,
        CHAT,
        ask(temperature=1, n=3, max_tokens=4, stream=True)
        | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    )
    per_choice = {c["choices"][0]["index"]: c["usage"]["completion_tokens"] for c in chunks if c["choices"]}
    assert per_choice == {0: 4, 1: 4, 2: 4}
    assert chunks[-1]["choices"] == []
    usage = chunks[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (11, 12, 23)
    async with http.get("/metrics") as response:
        page = await response.text()
    assert 'vllm:prompt_tokens_total{engine="0",model_name="tiny"} 33.0' in page
    assert 'vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 3.0' in page


async def test_repeated_prompt_is_cached_in_whole_blocks(http):
    body = ask(max_tokens=1, messages=[{"role": "user", "content": "The quick brown fox " * 20}])
    usages = []
    for _ in range(2):
        async with http.post(CHAT, json=body) as response:
            usages.append((await response.json())["usage"])
    first, second = (u["prompt_tokens_details"] for u in usages)
    blocks = usages[0]["prompt_tokens"] // 16 * 16
    assert (first["cached_tokens"], first["created_cache_tokens"]) == (0, blocks)
    assert (second["cached_tokens"], second["created_cache_tokens"]) == (blocks, 0)


async def test_replies_end_by_themselves_when_configured():
    async with serve(Config(token_ms=0, prefill_ms=0, mean_tokens=5)) as sim, aiohttp.ClientSession(sim.url) as http:
        async with http.post(CHAT, json=ask(max_tokens=500)) as response:
            choice = (await response.json())["choices"][0]
        assert choice["finish_reason"] == "stop"
        async with http.post(CHAT, json=ask(max_tokens=500, ignore_eos=True)) as response:
            reply = await response.json()
        assert reply["usage"]["completion_tokens"] == 500


async def test_required_tool_call_is_valid_json_in_few_chunks(http):
    schema = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}}}
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]
    body = ask(tools=tools, tool_choice="required", stream=True, stream_options={"include_usage": True})
    chunks = await events(http, CHAT, body)
    calls = [c["choices"][0]["delta"]["tool_calls"][0] for c in chunks[1:-2]]
    assert calls[0]["function"] == {"name": "get_weather"}
    assert json.loads("".join(c["function"]["arguments"] for c in calls[1:])) == {"city": "Paris"}
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["usage"]["completion_tokens"] > len(calls)


async def test_bad_schema_is_an_error_inside_the_stream(http):
    bad = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}
    chunks = await events(http, CHAT, ask(response_format=bad, stream=True))
    assert chunks[-1]["error"]["code"] == 400
    async with http.post(CHAT, json=ask(response_format=bad)) as response:
        assert response.status == 400


async def test_stop_string_split_over_tokens_never_shows(http):
    async with http.post(CHAT, json=ask(max_tokens=40)) as response:
        text = (await response.json())["choices"][0]["message"]["content"]
    stop = text[20:28]
    chunks = await events(http, CHAT, ask(max_tokens=40, stop=[stop], stream=True))
    shown = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    assert shown == text[: text.index(stop)]
    assert chunks[-1]["choices"][0]["stop_reason"] == stop
