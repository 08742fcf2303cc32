"""What billing sends to Stripe is accepted by Stripe's own mock, and the double answers in its shape.

`go install github.com/stripe/stripe-mock@latest` gives the mock.
"""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import aiohttp
import msgspec
import pytest
import stripe_double

from billing.stripe_api import Stripe, open_stripe

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
TENANT = UUID(int=7)
INSTALLED = Path.home() / ".cache/crosslogic/go/bin/stripe-mock"


@pytest.fixture
async def mock() -> AsyncIterator[str]:
    """The URL of a stripe-mock of this test's own."""
    command = os.environ.get("STRIPE_MOCK") or shutil.which("stripe-mock") or (INSTALLED.exists() and str(INSTALLED))
    if not command:
        reason = "stripe-mock is not installed: go install github.com/stripe/stripe-mock@latest"
        if os.environ.get("CROSSLOGIC_CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    process = await asyncio.create_subprocess_exec(
        command, "-http-addr", "127.0.0.1:0", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while not (found := re.search(rb"127\.0\.0\.1:(\d+)", line := await process.stdout.readline())):
                assert line, "stripe-mock ended"
        yield f"http://127.0.0.1:{found[1].decode()}"
    finally:
        process.terminate()
        await process.wait()


async def everything(api: Stripe) -> None:
    """Each call that makes something, and then each that finds it."""
    hour = NOW.replace(minute=0, second=0, microsecond=0)
    for _ in range(2):
        catalog = await api.catalog(NOW)
        customer = await api.customer(TENANT, "t", "t@example.com", NOW)
        await api.subscription(customer, TENANT, catalog.price_id, NOW)
        await api.grant(TENANT, customer, 500, NOW + HOUR, paid=False, now=NOW)
        await api.report("one", customer, 1, NOW)
        await api.total(catalog.meter_id, customer, hour, NOW)
        await api.sums(catalog.meter_id, customer, hour - HOUR, hour + HOUR)
    await api.rename(customer, "u", "u@example.com")
    await api.buy_credit(customer, TENANT, 500, "https://a.example", "https://b.example")
    await api.save_card(customer, TENANT, "https://a.example", "https://b.example")
    await api.portal(customer, "https://a.example")


async def test_requests_are_accepted_and_answers_have_the_shape(mock: str) -> None:
    async with stripe_double.serve() as double, open_stripe("sk_test_1", double.url, timeout=5) as api:
        await everything(api)
    headers = {"Authorization": "Bearer sk_test_123", "Content-Type": "application/x-www-form-urlencoded"}
    problems: list[str] = []
    async with aiohttp.ClientSession(mock, headers=headers) as session:
        for method, path, form, ours in double.exchanges:
            target = f"{path}?{form}" if method == "GET" else path
            async with session.request(method, target, data=None if method == "GET" else form) as response:
                theirs = await response.read()
                if response.status != 200:
                    problems.append(f"{method} {path} {form}: {response.status} {theirs!r}")
                    continue
            problems += differing(f"{method} {path}", msgspec.json.decode(ours), msgspec.json.decode(theirs))
    assert problems == []
    asked = {(method, re.sub(r"[a-z]+_\d{8}|crosslogic_usage", "{}", path)) for method, path, *_ in double.exchanges}
    assert len(asked) >= 16, "a call is not covered"


def differing(path: str, ours: object, theirs: object) -> list[str]:
    """Where ours has a field that theirs has not, or one of another type."""
    if ours is None or theirs is None:
        return []
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if path.endswith((".metadata", ".payload")):
            return []
        unknown = [f"{path}.{name} is not Stripe's" for name in ours.keys() - theirs.keys()]
        both = sorted(ours.keys() & theirs.keys())
        return unknown + [found for name in both for found in differing(f"{path}.{name}", ours[name], theirs[name])]
    if isinstance(ours, list) and isinstance(theirs, list):
        return differing(f"{path}[]", ours[0], theirs[0]) if ours and theirs else []
    if isinstance(ours, str) and isinstance(theirs, dict) and "id" in theirs:  # a field that may be expanded
        return []
    numbers = isinstance(ours, int | float) and isinstance(theirs, int | float)
    return [] if numbers or type(ours) is type(theirs) else [f"{path} is {type(ours).__name__}"]
