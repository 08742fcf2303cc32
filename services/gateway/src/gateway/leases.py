"""The gateway's side of `common.leases`: calls to Redis, with a budget for each.

Redis may be slow or gone: then nothing is asked until it answers again, so that a paused Redis does not pause requests.
"""

from collections.abc import Sequence

import msgspec
from prometheus_client import Counter, Histogram

from common.errors import Unavailable
from common.leases import Layer, granted_key, leases_key
from common.redis import Redis
from common.wire import Argument
from gateway import lines
from gateway.lines import Lines
from gateway.placing.picking import Offer

FAILURES = Counter("gateway_redis_failures", "Redis calls that failed or exceeded their budget")
SECONDS = Histogram(
    "gateway_redis_seconds", "Round trips to Redis", buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.5)
)
LIMITED = 0.25
"""Seconds for a request with limits or a budget: to keep them is worth waiting for a busy Redis."""
PATIENT = 1.0
"""Seconds where no client waits."""
MOST_GRANTS = 100
"""Slots that one `cl_offer` gives."""
_NONE = -1


class Hold(msgspec.Struct, frozen=True):
    """Money that a request may spend; amounts are whole micro-dollars."""

    scope: str
    key: str
    """The API key, whose budget is named `key:…`."""
    amount: int
    version: int
    budgets: tuple[tuple[str, int, int], ...]
    """(Name, spent as of `version`, limit)."""


class Ask(msgspec.Struct, frozen=True):
    """What a request asks to be let in with."""

    layers: tuple[Layer, ...] = ()
    tokens: int = 0
    """An estimate of what it will use."""
    hold: Hold | None = None


class Standing(msgspec.Struct, frozen=True):
    """How far the tightest layer is used up."""

    limit: int
    remaining: int
    reset_ms: int
    """Until nothing of it is used."""


class Verdict(msgspec.Struct, frozen=True):
    """As of `cl_admit`."""

    kind: str
    which: str
    number: int
    requests: Standing | None
    tokens: Standing | None


class Turn(msgspec.Struct, frozen=True):
    """As what a request waits, for `cl_wait`."""

    line: str
    flow: str
    weight: float
    waited_ms: int
    """Before it came to this Redis."""
    patience_ms: int
    most: int
    """That may wait in the line."""
    most_of_flow: int
    channel: str
    """Where it is told that there is a slot."""


class Leases:
    def __init__(self, redis: Redis, upkeep: Redis, namespace: str, *, budget: float = 0.05) -> None:
        """`redis` carries what requests wait for and what gives their slots back, in the order of the calls, so that no
        return overtakes its take; `upkeep` the rest, which may be long. `budget`: seconds for a take."""
        self._redis = redis
        self._upkeep = upkeep
        self._namespace = namespace
        self._key = leases_key(namespace)
        self._budget = budget

    async def take(
        self, id: str, ttl_ms: int, intent: bytes, offer: Offer, random: float, line: str
    ) -> tuple[str, int] | None:
        """A slot on one of the places → (node, its live requests); None when all are full, or somebody waits in `line`
        already."""
        answer = await self._call(
            *(self._redis, self._budget, "cl_take", id, ttl_ms, intent, offer.how(random), line), *_places(offer)
        )
        return (_text(answer[0]), int(answer[1])) if isinstance(answer, list) and answer else None

    async def admit(
        self, id: str, ttl_ms: int, intent: bytes, offer: Offer, random: float, line: str, ask: Ask
    ) -> Verdict:
        """A slot on one of the places and all that `ask` names, or nothing."""
        return _verdict(
            await self._call(
                *(self._redis, LIMITED, "cl_admit", id, ttl_ms, intent, offer.how(random), line),
                *_asked(ask),
                *_places(offer),
            )
        )

    async def wait(
        self,
        id: str,
        ttl_ms: int,
        intent: bytes,
        random: float,
        turn: Turn,
        ask: Ask,
        nodes: Sequence[tuple[str, int, float]],
    ) -> Verdict:
        """Wait for a slot, unless there is one, or something refuses the request."""
        answer = await self._call(
            *(self._redis, PATIENT, "cl_wait", id, ttl_ms, intent, f"{random} {ask.tokens}"),
            *msgspec.structs.astuple(turn),
            *_asked(ask),
            *_flat(nodes),
        )
        return _verdict(answer)

    async def offer(self, line: str, nodes: Sequence[tuple[str, int, float]]) -> bool:
        """Give what slots there are to whose turn it is. True when there may be more."""
        return await self._call(self._upkeep, PATIENT, "cl_offer", line, *_flat(nodes)) == MOST_GRANTS

    async def waiting(self, ttl_ms: int, ids: Sequence[str]) -> list[tuple[str, str]]:
        """These wait on, but for those in the answer: (id, the node that it got a slot on, "" when it is not known)."""
        answer = await self._call(self._redis, PATIENT, "cl_waiting", ttl_ms, *ids)
        assert isinstance(answer, list)
        return [(_text(id), _text(node)) for id, node in zip(answer[::2], answer[1::2], strict=True)]

    async def leave(self, id: str) -> None:
        """It waits no more, and has no slot, if it got one."""
        await self._call(self._redis, PATIENT, "cl_leave", id)

    async def granted(self, channel: str, seconds: int) -> list[str]:
        """Who has got a slot; empty after so many seconds. Only for a connection of its own, which it blocks."""
        key = granted_key(self._namespace, channel)
        first = await self._redis.ask("BLPOP", key, seconds, budget=seconds + PATIENT)
        if not isinstance(first, list):
            return []
        others = await self._redis.ask("LPOP", key, 1000, budget=PATIENT)
        return [_text(id) for id in (first[1], *(others if isinstance(others, list) else ()))]

    async def renew(self, ttl_ms: int, progress: Sequence[tuple[str, bytes]]) -> list[str]:
        """Extend the leases of these requests; answers those that have none."""
        answer = await self._call(
            self._upkeep, PATIENT, "cl_renew", ttl_ms, *[part for one in progress for part in one]
        )
        return [_text(id) for id in answer] if isinstance(answer, list) else []

    async def claim(self, id: str, ttl_ms: int, intent: bytes, node: str, progress: bytes, ask: Ask) -> None:
        """Write a lease that Redis does not have (it lost its data, or was away when the request began), with all that
        the request was let in with."""
        lease = (id, ttl_ms, intent, node, progress, ask.tokens)
        await self._call(self._upkeep, PATIENT, "cl_assert", *lease, *_asked(ask))

    async def give_back(self, id: str) -> None:
        await self._call(self._redis, PATIENT, "cl_return", id)

    async def end(self, id: str, tokens: int, cost: int) -> None:
        """Give the slot back; `tokens` and `cost`, in micro-dollars, are what the request has used."""
        await self._call(self._redis, PATIENT, "cl_end", id, tokens, cost)

    async def unrecorded(self, scope: str) -> tuple[int, list[str]]:
        """(Version that Redis knows, requests that hold or have spent money and are not known to be recorded)."""
        answer = await self._call(self._upkeep, PATIENT, "cl_unrecorded", scope)
        assert isinstance(answer, list)
        return int(answer[0]), [_text(id) for id in answer[1]]

    async def record(self, scope: str, version: int, spent: Sequence[tuple[str, int]], ids: Sequence[str]) -> None:
        """Micro-dollars by budget, which include what `ids` have cost."""
        sums = [part for one in spent for part in one]
        await self._call(self._upkeep, PATIENT, "cl_record", scope, version, len(spent), *sums, *ids)

    async def lines(self) -> Lines:
        """Who waits, by line; those that are empty are left out."""
        return lines.read(await self._call(self._upkeep, PATIENT, "cl_queue"))

    async def loads(self, nodes: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        """Live requests and pending tokens of each."""
        if not nodes:
            return {}, {}
        live = await self._call(self._upkeep, PATIENT, "cl_load", *nodes)
        pending = await self._call(self._upkeep, PATIENT, "cl_pending", *nodes)
        assert isinstance(live, list)
        assert isinstance(pending, list)
        return dict(zip(nodes, live, strict=True)), dict(zip(nodes, pending, strict=True))

    async def held(self, scopes: Sequence[str]) -> list[tuple[int, int]]:
        """(Held, spent and not recorded) of each scope, in micro-dollars."""
        answer = await self._call(self._upkeep, PATIENT, "cl_held", *scopes) if scopes else []
        assert isinstance(answer, list)
        return [(int(held), int(spent)) for held, spent in answer]

    async def _call(self, redis: Redis, budget: float, function: str, *arguments: Argument) -> object:
        """Raises Unavailable."""
        try:
            return await redis.ask("FCALL", function, 1, self._key, *arguments, budget=budget)
        except Unavailable:
            FAILURES.inc()
            raise


def _flat(nodes: Sequence[tuple[str, int, float]]) -> list[Argument]:
    return [part for node in nodes for part in node]


def _places(offer: Offer) -> list[Argument]:
    return [part for place in offer.places for part in (place.id, place.capacity, place.weight)]


def _asked(ask: Ask) -> list[Argument]:
    hold = ask.hold or Hold("", "", 0, 0, ())
    layers = [part for layer in ask.layers for part in msgspec.structs.astuple(layer)]
    budgets = [part for budget in hold.budgets for part in budget]
    money = (hold.scope, hold.key, hold.amount, hold.version, len(hold.budgets))
    return [ask.tokens, len(ask.layers), *layers, *money, *budgets]


def _verdict(answer: object) -> Verdict:
    assert isinstance(answer, list)
    kind, which, number, *standing = answer
    return Verdict(_text(kind), _text(which), int(number), _standing(standing[:3]), _standing(standing[3:]))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _standing(values: list[int]) -> Standing | None:
    return None if values[0] == _NONE else Standing(*values)
