"""What the gateway is measured beside, each in front of the same two engines: nginx, vllm-router, sglang-router."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec


class Target(msgspec.Struct, frozen=True):
    """One proxy; for JSON and for streams it may be two processes."""

    name: str
    json_pid: int
    stream_pid: int
    json_url: str
    stream_url: str
    key: str = "none"


@contextmanager
def child(command: list[str], log: Path) -> Iterator[int]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@contextmanager
def nginx(folder: Path, json_engine: str, stream_engine: str) -> Iterator[Target]:
    """Bytes only: the floor."""
    ports = {free_port(): json_engine, free_port(): stream_engine}
    servers = "".join(
        f"upstream u{port} {{ server {url.removeprefix('http://')}; keepalive 256; }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u{port}; proxy_http_version 1.1;"
        ' proxy_set_header Connection ""; proxy_buffering off; } }\n'
        for port, url in ports.items()
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        f"events {{ worker_connections 4096; }}\nhttp {{ access_log off; client_body_temp_path {folder};\n{servers}}}\n"
    )
    with child(["nginx", "-p", str(folder), "-c", str(config)], folder / "nginx.out") as pid:
        yield Target("nginx", pid, pid, *(f"http://127.0.0.1:{port}" for port in ports))


@contextmanager
def router(folder: Path, name: str, command: list[str], json_engine: str, stream_engine: str) -> Iterator[Target]:
    """A Rust router with its defaults, one process for each engine."""
    with ExitStack() as stack:
        pids, urls = [], []
        for engine in (json_engine, stream_engine):
            port, metrics = str(free_port()), str(free_port())
            options = ["--host", "127.0.0.1", "--port", port, "--prometheus-port", metrics, "--worker-urls", engine]
            pids.append(stack.enter_context(child([*command, *options], folder / f"{name}.log")))
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            _wait(url, folder / f"{name}.log")
        yield Target(name, *pids, *urls)


@contextmanager
def peers(folder: Path, json_engine: str, stream_engine: str) -> Iterator[list[Target]]:
    python = Path(sys.executable).parent
    with ExitStack() as stack:
        yield [
            stack.enter_context(nginx(folder, json_engine, stream_engine)),
            stack.enter_context(
                router(folder, "vllm-router", [str(python / "vllm-router")], json_engine, stream_engine)
            ),
            stack.enter_context(
                router(folder, "sglang-router", [str(python / "sglang-router"), "launch"], json_engine, stream_engine)
            ),
        ]


def _wait(url: str, log: Path) -> None:
    """Until it has found its engine."""
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readiness", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            if time.monotonic() > until:
                raise RuntimeError(f"{url} is not ready:\n{log.read_text()[-2000:]}") from None
        time.sleep(0.1)
