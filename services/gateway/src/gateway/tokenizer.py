"""The sizes of a prompt and of a delivered text by the engine's own tokenizer, for a request whose engine did not tell.

That is one whose client left before the engine spoke, or, on endpoints whose usage comes last, before its end.
"""

import asyncio

import msgspec

from common.errors import NotFound
from gateway import question
from gateway.body import Endpoint, Prepared
from gateway.connection import Broken
from gateway.live import Counted, Live
from gateway.nodes import Nodes
from gateway.question import Question
from gateway.settlement import Count
from gateway.upstream import Upstream

TIMEOUT = 5.0
BYTES_A_TOKEN = 4
"""Where no engine answers."""


class _Answer(msgspec.Struct, frozen=True):
    count: int = 0
    input_tokens: int = 0
    """In answers to `/v1/messages/count_tokens`."""


class Tokenizer:
    def __init__(self, nodes: Nodes, upstream: Upstream) -> None:
        self._nodes = nodes
        self._upstream = upstream

    def of(self, endpoint: Endpoint, prepared: Prepared) -> Count:
        async def count(live: Live) -> Counted:
            return Counted(await self._prompt(live, endpoint, prepared), await self._reply(live))

        return count

    async def _prompt(self, live: Live, endpoint: Endpoint, prepared: Prepared) -> int:
        """Tokens; an estimate where no engine answers."""
        if live.stream is not None and live.stream.told_prompt:
            return live.stream.input_tokens
        try:
            async with asyncio.timeout(TIMEOUT):
                known, questions = question.of_prompt(endpoint, prepared)
                return known + sum([await self._ask(live, one) for one in questions])
        except (Broken, TimeoutError, msgspec.MsgspecError):
            return max(1, prepared.prompt_bytes // BYTES_A_TOKEN)

    async def _reply(self, live: Live) -> int:
        """Tokens; an event of a stream has one at least, and text alone may seem to have fewer than were made."""
        stream = live.stream
        if stream is None or not stream.text:
            return 0 if stream is None else stream.output_tokens
        try:
            async with asyncio.timeout(TIMEOUT):
                return max(stream.output_tokens, await self._ask(live, question.of_text(live.model, stream.text)))
        except (Broken, TimeoutError, msgspec.MsgspecError):
            return stream.output_tokens

    async def _ask(self, live: Live, asked: Question) -> int:
        """The node that had the request, and if it has gone any other."""
        try:
            nodes = list(self._nodes.serving(live.model))
        except NotFound as error:
            raise Broken("the model has gone") from error
        nodes.sort(key=lambda node: node.id != live.node_id)
        for node in nodes[:2]:
            try:
                exchange = await self._upstream.send(node, asked.path, asked.body, f"{live.id}-tokenize")
                done = False
                try:
                    if await exchange.head() != 200:
                        raise Broken("the engine does not tokenize")
                    answer = msgspec.json.decode(await exchange.rest(), type=_Answer)
                    done = True
                    return answer.count or answer.input_tokens
                finally:
                    exchange.close(done=done)
            except Broken:
                continue
        raise Broken("no engine tokenizes")
