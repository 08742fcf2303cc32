"""Delivering events as Stripe does: signed, again until it is answered with 2xx, twice now and then, in any order."""

import asyncio
import random
import time
from collections.abc import Sequence

import aiohttp
import msgspec

from stripe_double.objects import Object
from stripe_double.signing import header


async def deliver(
    url: str, secret: str, events: Sequence[Object], *, copies: int = 1, seed: int | None = None, tries: int = 20
) -> list[int]:
    """All at once, `copies` of each, shuffled by `seed`. Returns every status that was answered."""
    bodies = [msgspec.json.encode(event) for event in events for _ in range(copies)]
    if seed is not None:
        random.Random(seed).shuffle(bodies)
    async with aiohttp.ClientSession() as session:
        found = await asyncio.gather(*(_one(session, url, secret, body, tries) for body in bodies))
    return [status for statuses in found for status in statuses]


async def _one(session: aiohttp.ClientSession, url: str, secret: str, body: bytes, tries: int) -> list[int]:
    statuses: list[int] = []
    for number in range(tries):
        signature = header(body, secret, int(time.time()))
        async with session.post(url, data=body, headers={"Stripe-Signature": signature}) as response:
            await response.read()
            statuses.append(response.status)
        if response.status < 300:
            break
        await asyncio.sleep(min(0.05 * 2**number, 1))
    return statuses
