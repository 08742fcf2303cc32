"""Real vLLM servers in processes of the tests' own."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from integration.shop import until

HERE = Path(__file__).parent


class Server:
    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self._process = process
        self.url = url

    async def healthy(self) -> None:
        """Returns once it answers; it may take a minute or two on a busy machine."""

        async def look() -> bool:
            assert self._process.poll() is None, "vLLM ended while it started"
            try:
                async with aiohttp.ClientSession() as session, session.get(f"{self.url}/health") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await until(look, bool, deadline=300)

    def kill(self) -> None:
        """SIGKILL to the server and to the processes that it has started, as when its machine is lost."""
        if self._process.poll() is None:
            for pid in [*_children(self._process.pid), self._process.pid]:
                os.kill(pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def serving(model: str) -> Iterator[Server]:
    """`model` is a folder's name in ENGINE_HOME. Clients must have left by the end: see the pitfalls of SIGTERM."""
    home = os.environ["ENGINE_HOME"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "DEST": home, "PORT": str(port), "MODEL": f"{home}/{model}"}
    process = subprocess.Popen([str(HERE / "serve.sh")], env=environment)  # in our session: see serve.sh
    server = Server(process, f"http://127.0.0.1:{port}")
    try:
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def _children(pid: int) -> list[int]:
    """All below a process, the youngest generation first."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [*_children(int(child)), int(child)]
    return found
