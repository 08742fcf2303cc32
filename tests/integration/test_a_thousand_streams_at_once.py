"""One gateway process carries a thousand streams at once: none is refused, cut or left out of the ledger."""

import asyncio
from typing import Any

import aiohttp
import asyncpg
import msgspec
from integration.shop import until

STREAMS = 1000
TOKENS = 20
BODY = {
    "model": "demo-8b",
    "max_tokens": TOKENS,
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [{"role": "user", "content": "Tell me a story about a river."}],
}


async def test_all_are_answered_whole_and_billed_once(make_stack: Any) -> None:
    stack = await make_stack(
        simulators=1, simulator_settings={"token_ms": 500, "prefill_ms": 100, "max_num_seqs": STREAMS}
    )
    together = 0
    most = 0

    async def one(session: aiohttp.ClientSession) -> int:
        nonlocal together, most
        async with session.post("/v1/chat/completions", json=BODY) as response:
            assert response.status == 200, await response.text()
            together += 1
            most = max(most, together)
            body = await response.read()
            together -= 1
        *_, told, end, _ = body.split(b"\n\n")
        assert end == b"data: [DONE]"
        return int(msgspec.json.decode(told[6:])["usage"]["completion_tokens"])

    async with aiohttp.ClientSession(
        stack.gateway_url,
        connector=aiohttp.TCPConnector(limit=0),
        headers={"Authorization": f"Bearer {stack.api_key}"},
        timeout=aiohttp.ClientTimeout(total=120),
    ) as session:
        told = await asyncio.gather(*[one(session) for _ in range(STREAMS)])
    assert set(told) == {TOKENS}
    assert most > STREAMS * 0.9

    connection = await asyncpg.connect(stack.postgres_dsn)
    try:

        async def rows() -> Any:
            return await connection.fetch("select outcome, output_tokens from billing.usage")

        billed = await until(rows, lambda rows: len(rows) >= STREAMS)
    finally:
        await connection.close()
    assert [tuple(row) for row in billed] == [("completed", TOKENS)] * STREAMS
