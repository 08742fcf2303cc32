"""Messages come twice, and the whole stream is replayed: totals stay."""

from typing import Any

import nats
from integration.shop import Shop, until
from nats.js.api import ConsumerConfig, DeliverPolicy
from openai import AsyncOpenAI

MESSAGES: Any = [{"role": "user", "content": "Tell me a story."}]


async def totals(shop: Shop) -> tuple[Any, Any]:
    query = f"tenant_id={shop.tenant_id}&group_by=model,key,environment,hour"
    rows = await shop.rows(0)
    return await shop.admin("GET", f"/admin/usage?{query}"), [dict(row) for row in rows]


async def test_every_message_twice_and_the_stream_replayed(shop: Shop, client: AsyncOpenAI) -> None:
    for stream in (True, False) * 5:
        answer: Any = await client.chat.completions.create(
            model=shop.model, messages=MESSAGES, max_tokens=6, stream=stream
        )
        if stream:
            [chunk async for chunk in answer]
    await shop.rows(10)
    before = await totals(shop)
    assert before[0]["total"]["output_tokens"] == 60

    connection = await nats.connect(shop.stack.nats_url)
    jetstream = connection.jetstream()
    subject = f"usage.recorded.v1.{shop.tenant_id}"
    replay = await jetstream.pull_subscribe(
        subject, stream="USAGE", config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    )
    messages = await replay.fetch(10, timeout=5)
    assert len(messages) == 10
    for round in range(3):
        for message in messages:
            # without the message id the stream takes it as new, as the command line's `nats pub` would send it
            headers = {"Nats-Msg-Id": f"again-{round}-{message.metadata.sequence.stream}"} if round else None
            await jetstream.publish(subject, message.data, headers=headers)

    async def pending() -> int:
        info = await jetstream.consumer_info("USAGE", "billing")
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    await until(pending, lambda left: left == 0)
    assert await totals(shop) == before
    await connection.close()
