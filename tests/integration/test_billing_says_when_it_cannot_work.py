"""Billing is ready while Postgres and NATS answer, and says so when they do not; nothing is lost meanwhile."""

import signal
from typing import Any

import aiohttp
import pytest
from integration.shop import Shop, until

import simulator


@pytest.mark.parametrize("server", ["postgres", "nats"])
async def test_a_server_that_is_away(make_stack: Any, server: str) -> None:
    stack = await make_stack(simulators=0)
    async with Shop.open(stack, simulator.Config(token_ms=1, prefill_ms=1)) as shop:

        async def ready() -> int:
            url = f"{stack.metrics_url('billing')}/readyz"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                return response.status

        async def ask() -> None:
            body = {"model": shop.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
            status, answer = await shop.call("POST", "/v1/chat/completions", body)
            assert status == 200, answer

        await until(ready, lambda status: status == 200)
        await ask()
        if server == "nats":
            await stack.kill(server, 0, signal.SIGSTOP)
        else:  # a stopped postmaster's backends would work on
            await stack.stop(server)
        await until(ready, lambda status: status == 503, deadline=30)
        await ask()
        if server == "nats":
            await stack.kill(server, 0, signal.SIGCONT)
        else:
            await stack.restart(server)
        await until(ready, lambda status: status == 200, deadline=30)
        assert len(await shop.rows(2)) == 2
