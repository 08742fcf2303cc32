"""What is done to whom, and when: a pure function of a seed, so that a failure can be replayed."""

import random
from collections.abc import Iterator

import msgspec

TARGETS = {
    # name: how many there are, how often it is chosen, what is done to it
    "gateway": (2, 8, ("kill", "kill", "kill", "pause", "stop")),
    "scheduler": (2, 3, ("kill", "kill", "pause")),
    "billing": (2, 4, ("kill", "kill", "pause")),
    "provisioner": (1, 1, ("kill",)),
    "nats": (1, 3, ("kill", "pause")),
    "valkey": (1, 2, ("kill", "pause")),
    "postgres": (1, 2, ("kill", "pause")),
}
SPACING = 1.2
APART = 6.0
"""Seconds between a loss of Redis and one of a gateway: losing both at once is outside the promise (ADR 4)."""


class Step(msgspec.Struct, frozen=True):
    at: float
    """Seconds from the start of the load."""
    target: str
    index: int
    action: str
    """`kill` (SIGKILL), `stop` (SIGTERM), `pause` (SIGSTOP, later SIGCONT)."""
    seconds: float = 0.0
    """Of a pause."""


def steps(seed: int, count: int) -> Iterator[Step]:
    """`count` steps, each of which hurts one process."""
    choose = random.Random(seed)
    at, last = 2.0, {"valkey": -APART, "gateway": -APART}
    for _ in range(count):
        at += SPACING * choose.uniform(0.5, 1.5)
        target = choose.choices(list(TARGETS), [weight for _, weight, _ in TARGETS.values()])[0]
        if target in last:
            other = last["gateway" if target == "valkey" else "valkey"]
            at = max(at, other + APART)
            last[target] = at
        replicas, _, actions = TARGETS[target]
        action = choose.choice(actions)
        pause = choose.uniform(0.5, 7.0) if action == "pause" else 0.0
        if target == "valkey":
            last[target] += pause
        yield Step(round(at, 3), target, choose.randrange(replicas), action, round(pause, 3))
