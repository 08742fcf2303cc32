"""The size of a prompt by the engine's own tokenizer, for a request whose client left before the engine told."""

import asyncio

import msgspec

from gateway.body import Endpoint, Prepared
from gateway.connection import Broken
from gateway.live import Live
from gateway.nodes import Nodes
from gateway.settlement import CountPrompt
from gateway.upstream import Upstream

TIMEOUT = 5.0
CHAT_FIELDS = (
    "model",
    "messages",
    "tools",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
)


class _Count(msgspec.Struct, frozen=True):
    count: int


class Tokenizer:
    def __init__(self, nodes: Nodes, upstream: Upstream) -> None:
        self._nodes = nodes
        self._upstream = upstream

    def of(self, endpoint: Endpoint, prepared: Prepared) -> CountPrompt:
        async def count(live: Live) -> int | None:
            """Tokens; an estimate of four bytes a token where no engine answers."""
            try:
                async with asyncio.timeout(TIMEOUT):
                    known, bodies = _questions(endpoint, prepared)
                    return known + sum([await self._count(live, body) for body in bodies])
            except (Broken, TimeoutError, msgspec.MsgspecError):
                return max(
                    1,
                    sum(
                        len(memoryview(prepared.fields[name]))
                        for name in ("messages", "prompt")
                        if name in prepared.fields
                    )
                    // 4,
                )

        return count

    async def _count(self, live: Live, body: bytes) -> int:
        node = next((n for n in self._nodes.serving(live.model) if n.id == live.node_id), None)
        if node is None:
            raise Broken("the node has gone")
        exchange = await self._upstream.send(node, "/tokenize", body, f"{live.id}-tokenize")
        done = False
        try:
            if await exchange.head() != 200:
                raise Broken("the engine does not tokenize")
            answer = await exchange.rest()
            done = True
            return msgspec.json.decode(answer, type=_Count).count
        finally:
            exchange.close(done=done)


def _questions(endpoint: Endpoint, prepared: Prepared) -> tuple[int, list[bytes]]:
    """Tokens that are known already (prompts given as token ids), and a body for `/tokenize` a remaining prompt."""
    if endpoint == "chat.completions":
        fields = {name: prepared.fields[name] for name in CHAT_FIELDS if name in prepared.fields}
        return 0, [msgspec.json.encode(fields)]
    prompt = msgspec.json.decode(prepared.fields["prompt"], type=str | list[str | int | list[int]])
    parts = [prompt] if isinstance(prompt, str) else prompt
    known = sum(1 if isinstance(part, int) else len(part) for part in parts if not isinstance(part, str))
    return known, [
        msgspec.json.encode({"model": prepared.model, "prompt": part}) for part in parts if isinstance(part, str)
    ]
