"""A child is waited for, named when it fails, and ended whatever it does."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stack import ports
from stack.process import Child, Command, StartFailed, tcp_accepts

LISTEN = """
import signal, socket, sys
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
while True:
    server.accept()[0].close()
"""


def listener(port: ports.Port, how: str = "", stop_seconds: float = 15) -> Command:
    return Command(
        name="listener",
        argv=(sys.executable, "-c", LISTEN, str(port.number), how),
        ready=lambda: tcp_accepts(port.number),
        stop_seconds=stop_seconds,
    )


async def test_a_child_that_dies_at_once_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    program = "raise SystemExit('no luck')"
    command = Command(name="brief", argv=(sys.executable, "-c", program), ready=lambda: tcp_accepts(1))
    with pytest.raises(StartFailed, match="brief ended with code 1\nno luck"):
        await Child(command, tmp_path, restart=True).start()


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    port = ports.reserve()
    child = Child(listener(port, "deaf", stop_seconds=0.1), tmp_path, restart=True)
    await child.start()
    await child.stop()
    assert child.pid is None
    port.release()


async def test_a_frozen_child_stops_when_asked(tmp_path: Path) -> None:
    port = ports.reserve()
    child = Child(listener(port), tmp_path, restart=False)
    await child.start()
    await child.kill(signal.SIGSTOP)
    await child.stop()
    assert child.pid is None
    port.release()


async def test_a_child_comes_back_again_and_again_on_its_port(tmp_path: Path) -> None:
    port = ports.reserve()
    child = Child(listener(port), tmp_path, restart=True)
    await child.start()
    seen = {child.pid}
    for _ in range(3):
        await child.kill(signal.SIGKILL)
        await child.ready()
        seen.add(child.pid)
    assert len(seen) == 4
    await child.stop()
    port.release()


async def test_a_used_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with pytest.raises(ports.PortInUse, match=rf"port {number} \(PORT\) is in use"):
            ports.reserve(number, "PORT")


STACK = """
import asyncio, sys
from pathlib import Path
from stack.stack import Config, Stack

async def main():
    async with Stack(Config(dir=Path(sys.argv[1]), services=(), simulators=1)):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_stack_leaves_nobody(stack_dir: Path, census: Any, until: Any) -> None:
    process = subprocess.Popen([sys.executable, "-c", STACK, str(stack_dir)], env=census.env, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    assert len(census.alive) >= 5
    process.kill()
    process.wait()
    process.stdout.close()
    await until(lambda: not census.alive)
