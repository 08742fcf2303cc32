"""The official clients work as they are, told nothing but where and with which key."""

import asyncio
import hashlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import openai
import pytest
from integration.shop import Shop
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

import simulator
from stack.stack import Stack

NODE_CLIENT = Path(__file__).parent / "node_client"
MESSAGES: Any = [{"role": "user", "content": "Tell me a story about a river, please."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "look_up",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}


class Place(BaseModel):
    place: str


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    config = simulator.Config(models=(), token_ms=2, prefill_ms=2, everything=True)
    async with Shop.open(stack, config) as shop:
        yield shop


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
async def claude(shop: Shop) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=shop.url, api_key=shop.key, max_retries=0, timeout=30) as client:
        yield client


async def test_openai_chat(shop: Shop, client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model=shop.model, messages=MESSAGES, max_tokens=7)
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (7, "length")
    asked: Any = {"model": shop.model, "messages": MESSAGES, "max_tokens": 60, "response_format": Place}
    async with client.chat.completions.stream(**asked) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert isinstance(final.choices[0].message.parsed, Place)


async def test_openai_structured_tool_call(shop: Shop, client: openai.AsyncOpenAI) -> None:
    parsed = await client.chat.completions.parse(
        model=shop.model, messages=MESSAGES, tools=[TOOL], tool_choice="required", max_tokens=60
    )
    (call,) = parsed.choices[0].message.tool_calls or []
    assert call.function.name == "look_up"
    assert isinstance(call.function.parsed_arguments, dict)
    assert isinstance(call.function.parsed_arguments["place"], str)


async def test_openai_completions_and_embeddings(shop: Shop, client: openai.AsyncOpenAI) -> None:
    completion = await client.completions.create(model=shop.model, prompt="One river", max_tokens=5)
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 5
    embedded = await client.embeddings.create(model=shop.model, input=["a river", "a bridge"])  # as base64
    assert [len(one.embedding) for one in embedded.data] == [64, 64]


async def test_openai_responses(shop: Shop, client: openai.AsyncOpenAI) -> None:
    whole = await client.responses.create(model=shop.model, input="Hello", max_output_tokens=7)
    assert whole.usage is not None
    assert whole.usage.output_tokens == 7
    assert whole.output_text
    async with client.responses.stream(model=shop.model, input="Hello", max_output_tokens=7) as stream:
        kinds = [event.type async for event in stream]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    final = await stream.get_final_response()
    assert final.output_text


async def test_openai_raises_what_is_told_in_a_stream(shop: Shop, client: openai.AsyncOpenAI) -> None:
    shop.engine.faults.arm(simulator.Fault(fault="truncate", after_tokens=3, times=1))
    with pytest.raises(openai.APIError):
        async for _ in await client.responses.create(model=shop.model, input="Hello", stream=True):
            pass
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model=shop.model, input="Hello", previous_response_id="resp_1")
    assert refused.value.param == "previous_response_id"


async def test_anthropic_messages(shop: Shop, claude: anthropic.AsyncAnthropic) -> None:
    whole = await claude.messages.create(model=shop.model, messages=MESSAGES, max_tokens=7)
    assert (whole.usage.output_tokens, whole.stop_reason) == (7, "max_tokens")
    async with claude.messages.stream(model=shop.model, messages=MESSAGES, max_tokens=7) as stream:
        text = "".join([part async for part in stream.text_stream])
        final = await stream.get_final_message()
    assert text
    assert final.usage.output_tokens == 7
    counted = await claude.messages.count_tokens(model=shop.model, messages=MESSAGES)
    first = (await shop.rows(2))[0]
    assert counted.input_tokens == first["input_tokens"]


async def test_anthropic_errors(shop: Shop, claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        await claude.messages.create(model="nope", messages=MESSAGES, max_tokens=7)
    with pytest.raises(anthropic.BadRequestError):
        await claude.messages.create(model=shop.model, messages=MESSAGES, max_tokens=0)
    with pytest.raises(anthropic.AuthenticationError):
        await claude.with_options(api_key="no").messages.create(model=shop.model, messages=MESSAGES, max_tokens=7)
    shop.engine.faults.arm(simulator.Fault(fault="truncate", after_tokens=3, times=1))
    with pytest.raises(anthropic.APIStatusError):
        async with claude.messages.stream(model=shop.model, messages=MESSAGES, max_tokens=7) as stream:
            await stream.get_final_message()


async def test_langchain(shop: Shop) -> None:
    # a client of its own: langchain's are shared by the whole process and outlive this test's loop
    async with openai.DefaultAsyncHttpxClient() as http:
        where: Any = {"base_url": f"{shop.url}/v1", "api_key": shop.key, "max_retries": 0, "http_async_client": http}
        chat = ChatOpenAI(model=shop.model, max_completion_tokens=7, stream_usage=True, **where)
        answer = await chat.ainvoke("Tell me a story.")
        assert answer.content
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["output_tokens"] == 7
        chunks = [chunk async for chunk in chat.astream("Tell me a story.")]
        assert sum((chunk.usage_metadata or {"output_tokens": 0})["output_tokens"] for chunk in chunks) == 7
        embeddings = OpenAIEmbeddings(model=shop.model, check_embedding_ctx_length=False, **where)
        assert len(await embeddings.aembed_query("a river")) == 64


async def test_openai_for_node(shop: Shop) -> None:
    said = await run("node", "client.mjs", cwd=await node_client(), OPENAI_BASE_URL=f"{shop.url}/v1",
                     OPENAI_API_KEY=shop.key, MODEL=shop.model)  # fmt: skip
    assert msgspec.json.decode(said) == {
        "whole": 7,
        "streamed": 7,
        "text": True,
        "response": 7,
        "completed": 7,
        "refused": ["NotFoundError", 404, "model_not_found"],
    }


async def node_client() -> Path:
    """A folder with the client and what it needs, installed once for each lock."""
    lock = (NODE_CLIENT / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "crosslogic" / f"node-client-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        making = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(NODE_CLIENT, making, ignore=shutil.ignore_patterns("node_modules"))
        await run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=making)
        (making / "installed").touch()
        try:
            making.rename(folder)
        except OSError:  # another worker was faster
            shutil.rmtree(making)
    shutil.copy(NODE_CLIENT / "client.mjs", folder / "client.mjs")
    return folder


async def run(*command: str, cwd: Path, **environment: str) -> bytes:
    # Node comes as a wheel beside this Python, so that its version is locked too
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, "PATH": path, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out
