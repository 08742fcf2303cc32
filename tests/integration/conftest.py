"""A tenant of one's own in the running stack, an engine of one's own, and a client of the official kind."""

from collections.abc import AsyncIterator

import pytest
from integration.shop import Shop
from openai import AsyncOpenAI

import simulator
from stack.stack import Stack


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    async with Shop.open(stack, simulator.Config(models=(), token_ms=2, prefill_ms=2)) as shop:
        yield shop


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{shop.url}/v1", api_key=shop.key, max_retries=0, timeout=30) as client:
        yield client
