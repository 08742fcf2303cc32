"""A service ends when it is told to."""

import asyncio

from common.run import cancelled


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    lost = 0

    async def loses_two() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    async def ends_badly() -> None:
        raise RuntimeError

    tasks = [asyncio.create_task(loses_two()), asyncio.create_task(ends_badly())]
    await asyncio.sleep(0)
    await cancelled(tasks)
    assert lost == 3
    assert all(task.done() for task in tasks)
    assert isinstance(tasks[1].exception(), RuntimeError)
    await cancelled([])
