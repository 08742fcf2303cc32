"""`make bench`: what a proxied request and a streamed chunk cost in CPU time, beside other proxies in the same run.

CPU time per unit of work, not a stopwatch: these machines are shared. Each round measures every proxy, so that what the
machine does meanwhile falls on all of them; the medians are compared.
"""

import asyncio
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from bench import cpu
from bench.peers import Target, free_port, peers

from stack.stack import Config, Stack

HERE = Path(__file__).parent
TOKENS, TOKEN_US, STREAMS = 100, 20_000, 100
MESSAGE = '"messages":[{"role":"user","content":"Say hello to the world, please."}]'
JSON = f'{{"model":"at-once","max_tokens":64,{MESSAGE}}}'
STREAM = f'{{"model":"every-20ms","max_tokens":{TOKENS},"stream":true,{MESSAGE}}}'


class Cost(msgspec.Struct, frozen=True):
    """Microseconds of CPU time, and what wrk saw."""

    json: float
    chunk: float
    paced_p99_ms: float
    """Of 16 connections that ask 320 times a second together: no queue, so it is the proxy's own delay."""
    memory_mb: float


def wrk(target: Target, url: str, connections: int, seconds: int, body: str, wait: int = 0) -> tuple[int, float]:
    """(Requests, p99 in ms); raises where an answer was not 200."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "30s", "--latency"]
    done = subprocess.run(
        [*command, "-s", str(HERE / "post.lua"), f"{url}/v1/chat/completions"],
        env={**os.environ, "BODY": body, "KEY": target.key, "WAIT": str(wait)},
        capture_output=True,
        text=True,
        check=True,
    )
    if "Non-2xx" in done.stdout:
        raise RuntimeError(f"{target.name} did not answer 200:\n{done.stdout}")
    (requests,) = re.findall(r"(\d+) requests in", done.stdout)
    ((number, unit),) = re.findall(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    return int(requests), float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


class Engine:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def chunks(self) -> int:
        """How many it has sent in its life."""
        self._process.send_signal(signal.SIGUSR1)
        assert self._process.stderr is not None
        return int(self._process.stderr.readline().split()[1])


@contextmanager
def engine(folder: Path, port: int, delay_us: int, model: str) -> Iterator[Engine]:
    binary = folder / "engine"
    if not binary.exists():
        subprocess.run(["gcc", "-O2", "-o", str(binary), str(HERE / "engine.c")], check=True)
    process = subprocess.Popen([str(binary), str(port), str(delay_us), model], stderr=subprocess.PIPE, text=True)
    try:
        yield Engine(process, f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def measure(target: Target, slow: Engine) -> Cost:
    """`slow` is the engine behind its streams; a chunk is what that has sent, of streams that were cut, too."""
    pids = cpu.tree(target.json_pid)
    wrk(target, target.json_url, 4, 1, JSON, wait=20)
    _, p99 = wrk(target, target.json_url, 16, 4, JSON, wait=50)
    before = cpu.seconds(pids)
    requests, _ = wrk(target, target.json_url, 16, 4, JSON)
    json = (cpu.seconds(pids) - before) / requests
    if target.stream_pid != target.json_pid:
        wrk(target, target.stream_url, 4, 3, STREAM)
    pids = cpu.tree(target.stream_pid)
    sent, before = slow.chunks(), cpu.seconds(pids)
    wrk(target, target.stream_url, STREAMS, 7, STREAM)
    chunk = (cpu.seconds(pids) - before) / (slow.chunks() - sent)
    return Cost(json * 1e6, chunk * 1e6, p99, cpu.megabytes(pids))


async def run(rounds: int, folder: Path) -> tuple[dict[str, list[Cost]], float]:
    """Costs by name, and the p99 of asking the engine itself, in ms."""
    with (
        engine(folder, free_port(), 0, "at-once") as at_once,
        engine(folder, free_port(), TOKEN_US, "every-20ms") as slow,
        peers(folder, at_once.url, slow.url) as beside,
    ):
        direct = Target("engine", 0, 0, at_once.url, slow.url)
        straight: list[float] = []
        variants = {"gateway": {}, "gateway, no continuation": {"GATEWAY_CONTINUATION": "false"}}
        found: dict[str, list[Cost]] = {}
        for name, env in variants.items():
            async with Stack(Config(engines=(at_once.url, slow.url), service_env=env, durable=True)) as stack:
                pid, url = stack.pids("gateway")[0], stack.gateway_url
                gateway = Target(name, pid, pid, url, url, stack.api_key)
                for _ in range(rounds):
                    straight.append((await asyncio.to_thread(wrk, direct, at_once.url, 16, 4, JSON, 50))[1])
                    for target in (*beside, gateway):
                        found.setdefault(target.name, []).append(await asyncio.to_thread(measure, target, slow))
        return found, statistics.median(straight)


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in Cost.__struct_fields__))


def show(found: dict[str, list[Cost]], straight: float) -> dict[str, float]:
    floor = median(found["nginx"])
    ratios: dict[str, float] = {}
    print(f"{'':28}{'us/request':>12}{'x nginx':>9}{'us/chunk':>11}{'x nginx':>9}{'+p99 ms':>9}{'MB':>7}")
    for name, costs in found.items():
        cost = median(costs)
        request, chunk = cost.json / floor.json, cost.chunk / floor.chunk
        ratios[f"{name}: request"], ratios[f"{name}: chunk"] = round(request, 2), round(chunk, 2)
        print(
            f"{name:28}{cost.json:12.1f}{request:9.2f}{cost.chunk:11.1f}{chunk:9.2f}"
            f"{cost.paced_p99_ms - straight:9.1f}{cost.memory_mb:7.0f}"
        )
    return ratios


def main() -> int:
    missing = [tool for tool in ("wrk", "nginx", "gcc") if shutil.which(tool) is None]
    if missing:
        sys.stderr.write(f"bench needs {', '.join(missing)} (Debian packages: wrk, nginx-light, gcc)\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="crosslogic-bench-") as name:
        found, straight = asyncio.run(run(int(os.environ.get("ROUNDS") or 3), Path(name)))
    ratios = show(found, straight)
    if out := os.environ.get("OUT"):
        Path(out).write_bytes(msgspec.json.format(msgspec.json.encode(ratios), indent=2) + b"\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
