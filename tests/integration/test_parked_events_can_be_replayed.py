"""An event that cannot be parsed or priced is parked, visible, and charged once what it lacked is there."""

import uuid
from typing import Any

import msgspec
import nats
from integration.shop import Shop, until
from openai import AsyncOpenAI

MESSAGES: Any = [{"role": "user", "content": "Tell me a story."}]


async def test_garbage_is_parked_and_the_rest_goes_on(shop: Shop, client: AsyncOpenAI) -> None:
    connection = await nats.connect(shop.stack.nats_url)
    for body in (b"garbage", b"{}", b'{"type":"usage.recorded.v1","id":"no"}'):
        await connection.jetstream().publish(f"usage.recorded.v1.{shop.tenant_id}", body)
    await connection.close()
    await client.chat.completions.create(model=shop.model, messages=MESSAGES, max_tokens=4)
    await shop.rows(1)

    async def parked() -> list[Any]:
        letters = (await shop.admin("GET", "/admin/dead-letters?limit=1000"))["dead_letters"]
        return [letter for letter in letters if letter["subject"].endswith(shop.tenant_id)]

    letters = await until(parked, lambda found: len(found) == 3)
    assert all(letter["reason"] for letter in letters)
    assert letters[0]["body"] == "garbage"


async def test_each_kind_of_bad_record_is_parked_with_a_reason(shop: Shop, client: AsyncOpenAI) -> None:
    good = msgspec.json.decode(await priced_event(shop, client))
    stranger = str(uuid.uuid4())
    bad = {
        "Invalid value 'usage.recorded.v9'": {"type": "usage.recorded.v9"},
        "`int` >= 0 - at `$.output_tokens`": {"output_tokens": -1},
        "`int` <= 1000000000 - at `$.input_tokens`": {"input_tokens": 10**15},
        "is more than 400 days ago": {"started_at": "1999-01-01T00:00:00Z"},
        "is more than 5 minutes ahead": {"started_at": "2199-01-01T00:00:00Z"},
        "its tenant does not exist": {"tenant_id": stranger},
        "bytes are more than 65536": {"metadata": "x" * 900_000},
        "exceed input_tokens": {"cached_tokens": 10**6},
    }
    connection = await nats.connect(shop.stack.nats_url)
    for changes in bad.values():
        body = msgspec.json.encode({**good, **changes})
        await connection.jetstream().publish(f"usage.recorded.v1.{stranger}", body)
    await connection.close()

    async def parked() -> list[Any]:
        letters = (await shop.admin("GET", "/admin/dead-letters?limit=1000"))["dead_letters"]
        return [letter["reason"] for letter in letters if letter["subject"].endswith(stranger)]

    reasons = await until(parked, lambda found: len(found) == len(bad))
    for reason in bad:
        assert sum(reason in found for found in reasons) == 1, (reason, reasons)
    await client.chat.completions.create(model=shop.model, messages=MESSAGES, max_tokens=4)
    assert len(await shop.rows(2)) == 2


async def test_an_unpriced_model_is_charged_after_its_price_is_put(shop: Shop, client: AsyncOpenAI) -> None:
    event = await priced_event(shop, client)
    unpriced = event.replace(shop.model.encode(), f"{shop.model}-new".encode())
    (row,) = await shop.rows(1)
    new_id = f"{str(row['id'])[:-4]}{'0000' if str(row['id'])[-4:] != '0000' else '1111'}"
    unpriced = unpriced.replace(str(row["id"]).encode(), new_id.encode())
    connection = await nats.connect(shop.stack.nats_url)
    await connection.jetstream().publish(f"usage.recorded.v1.{shop.tenant_id}", unpriced)
    await connection.close()

    async def parked() -> Any:
        letters = (await shop.admin("GET", "/admin/dead-letters?limit=1000"))["dead_letters"]
        return next((letter for letter in letters if new_id in letter["body"]), None)

    letter = await until(parked, bool)
    assert "price" in letter["reason"]
    price = {
        "model": f"{shop.model}-new",
        "input_usd_per_million": 1,
        "output_usd_per_million": 2,
        "effective_from": row["started_at"].isoformat(),
    }
    await shop.admin("PUT", "/admin/prices", price)
    await shop.admin("POST", f"/admin/dead-letters/{letter['id']}/replay")
    rows = await shop.rows(2)
    added = next(r for r in rows if str(r["id"]) == new_id)
    assert int(added["cost_picousd"]) == added["input_tokens"] * 1_000_000 + added["output_tokens"] * 2_000_000
    assert await parked() is None


async def priced_event(shop: Shop, client: AsyncOpenAI) -> bytes:
    await client.chat.completions.create(model=shop.model, messages=MESSAGES, max_tokens=4)
    await shop.rows(1)
    connection = await nats.connect(shop.stack.nats_url)
    subscription = await connection.jetstream().subscribe(
        f"usage.recorded.v1.{shop.tenant_id}", stream="USAGE", ordered_consumer=True
    )
    message = await subscription.next_msg(timeout=5)
    await connection.close()
    return bytes(message.data)
