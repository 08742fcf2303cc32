"""The children of a stack by name: started and stopped together, and counted."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from stack.process import Child, Command


class Supervisor:
    """Use from one event loop. `changed` is called when a process has begun or ended."""

    def __init__(self, logs: Path, restart: bool, changed: Callable[[], None]) -> None:
        self._logs = logs
        self._restart = restart
        self._changed = changed
        self._children: dict[str, list[Child]] = {}

    async def start(self, *commands: Command) -> None:
        """All at once. Raises StartFailed of the first that cannot."""
        children = [Child(command, self._logs, self._restart, self._changed) for command in commands]
        for child in children:  # before they run, so that `stop` finds them whatever happens
            self._children.setdefault(_group(child.command), []).append(child)
        tasks = [asyncio.create_task(child.start()) for child in children]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self, *groups: str) -> None:
        """All of these groups at once, or what is left of all for none."""
        names = groups or tuple(self._children)
        await asyncio.gather(*(child.stop() for name in names for child in self._children.get(name, [])))

    def child(self, name: str, index: int = 0) -> Child:
        """Raises KeyError, IndexError."""
        return self._children[name][index]

    def pids(self) -> dict[str, list[int]]:
        """Of those that run now."""
        return {
            name: [child.pid for child in children if child.pid is not None]
            for name, children in self._children.items()
        }


def _group(command: Command) -> str:
    return command.name.partition("-")[0]
