"""Scorers, strategies and the ring as tables; and that the pick in Python is the one in Redis."""

import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.leases import leases_key
from common.routing import Load, Node, Policy, State, Strategy
from gateway.placing import affinity, cache, picking, queue, region, risk, strategy, warmth
from gateway.placing.filters import reason
from gateway.placing.known import Known
from gateway.placing.picking import Offer, Place
from gateway.placing.pool import Pool
from gateway.placing.prefix import beginning
from gateway.placing.ring import Ring
from gateway.placing.wanted import Wanted

FUNCTIONS = Path(__file__).parents[2] / "scheduler/src/scheduler/functions"
EU, US = (Node(id=id, endpoint=f"http://{id}", region=id[:2], state="ready") for id in ("eu-1", "us-1"))
NOTHING = Known()
ANYBODY = Wanted()


def a_pool(count: int, how: Strategy = "least_loaded", **policy: Any) -> Pool:
    nodes = tuple(Node(id=f"n{number}", endpoint="http://n", state="ready") for number in range(count))
    return Pool(nodes, Policy(strategy=how, **policy))


def ids(offer: Offer) -> list[str]:
    return [place.id for place in offer.places]


@pytest.mark.parametrize(
    ("load", "expected"), [(Load(), 0), (Load(running=9), 0), (Load(waiting=3), 3), (Load(9, 1, 0.99), 1)]
)
def test_engine_queue(load: Load, expected: float) -> None:
    assert queue.bias(load) == expected


@pytest.mark.parametrize(("use", "expected"), [(0, 0), (0.8, 0), (0.9, 2), (1, 8), (1.7, 8)])
def test_kv_cache(use: float, expected: float) -> None:
    assert cache.bias(Load(cache=use)) == pytest.approx(expected)


@pytest.mark.parametrize(("chance", "expected"), [(0, 0), (0.5, 2), (1, 4)])
def test_spot_risk(chance: float, expected: float) -> None:
    assert risk.bias(msgspec.structs.replace(EU, risk=chance)) == expected


@pytest.mark.parametrize(
    ("wants", "node", "expected"),
    [("", EU, 0), ("eu", EU, 0), ("eu", US, region.ELSEWHERE), ("ap", EU, region.ELSEWHERE)],
)
def test_region(wants: str, node: Node, expected: float) -> None:
    assert region.bias(node, Wanted(region=wants)) == expected


@pytest.mark.parametrize(
    ("ready_for", "slow", "expected"),
    [(None, 10, 1), (0, 10, 0.2), (1, 10, 0.2), (5, 10, 0.5), (10, 10, 1), (99, 10, 1), (0, 0, 1)],
)
def test_slow_start(ready_for: float | None, slow: float, expected: float) -> None:
    assert warmth.share(ready_for, slow) == expected


@pytest.mark.parametrize(
    ("state", "wanted", "policy", "expected"),
    [
        ("ready", Wanted(), Policy(), None),
        ("warming", Wanted(), Policy(), "it is warming"),
        ("draining", Wanted(), Policy(), "it is draining"),
        ("unhealthy", Wanted(), Policy(), "it is unhealthy"),
        ("ready", Wanted(failed=frozenset({"eu-1"})), Policy(), "it has failed this request"),
        ("ready", Wanted(revision="b"), Policy(), "its weights are of another revision"),
        ("ready", Wanted(revision="a", region="eu"), Policy(region="require"), None),
        ("ready", Wanted(region="us"), Policy(region="require"), "it is in another region"),
        ("ready", Wanted(region="us"), Policy(region="prefer"), None),
        ("ready", Wanted(region="us"), Policy(region="ignore"), None),
        ("ready", Wanted(), Policy(region="require"), None),
    ],
)
def test_filters(state: State, wanted: Wanted, policy: Policy, expected: str | None) -> None:
    assert reason(msgspec.structs.replace(EU, state=state, revision="a"), wanted, policy) == expected


def test_each_bias_is_added() -> None:
    node = msgspec.structs.replace(EU, weight=2.0, max_concurrency=7, risk=1.0)
    known = Known({"eu-1": Load(4, 3, 1.0)}, {"eu-1": 100.0}, 105.0)
    assert strategy.place(node, Pool((node,), Policy()), Wanted(), known) == Place("eu-1", 7, 2.0, 3 + 8 + 4)


@pytest.mark.parametrize(("ready_for", "expected"), [(0, 0.2), (5, 0.5), (10, 1)])
def test_a_node_that_comes_up_takes_part_more_and_more(ready_for: float, expected: float) -> None:
    known = Known(up={"n0": 100.0, "n1": None}, now=100.0 + ready_for)
    random = Random(3)
    offers = [strategy.offer(a_pool(3), ANYBODY, known, turn, random) for turn in range(2000)]
    taken = [picking.pick(offer, {"n1": 5, "n2": 5}, {}, random.random()) for offer in offers]
    assert taken.count("n0") / 2000 == pytest.approx(expected, abs=0.05)


def test_nodes_that_came_up_one_after_the_other_share_from_the_first() -> None:
    known = Known(up={"n0": 100.0, "n1": 100.3, "n2": 104.0}, now=104.0)
    random = Random(3)
    offers = [strategy.offer(a_pool(3), ANYBODY, known, turn, random) for turn in range(300)]
    assert min(Counter(picking.pick(offer, {}, {}, random.random()) for offer in offers).values()) > 30


def test_another_region_is_offered_only_when_the_own_is_away_or_full() -> None:
    pool = Pool((EU, US), Policy())
    wanted = Wanted(region="eu")
    assert ids(strategy.offer(pool, wanted, NOTHING, 0, Random(1))) == ["eu-1"]
    wide = strategy.widest(pool, wanted, NOTHING, Random(1))
    assert sorted(ids(wide)) == ["eu-1", "us-1"]
    assert picking.pick(wide, {"eu-1": 1000}, {}, 0.5) == "eu-1"
    assert ids(strategy.offer(Pool((US,), Policy()), wanted, NOTHING, 0, Random(1))) == ["us-1"]
    required = Pool((US,), Policy(region="require"))
    assert ids(strategy.offer(required, wanted, NOTHING, 0, Random(1))) == []
    assert ids(strategy.widest(required, wanted, NOTHING, Random(1))) == []


@pytest.mark.parametrize("how", ["least_loaded", "prefix_affinity", "round_robin", "weighted", "random"])
def test_a_large_pool_is_sampled_and_nothing_unfit_is_offered(how: Strategy) -> None:
    pool = a_pool(100, how)
    wanted = Wanted(prompt=msgspec.Raw(b'"Once"'), failed=frozenset(f"n{number}" for number in range(0, 100, 3)))
    for turn in range(50):
        offered = ids(strategy.offer(pool, wanted, NOTHING, turn, Random(turn)))
        assert 5 <= len(offered) <= strategy.FEW + affinity.PREFERRED
        assert len(set(offered)) == len(offered)
        assert not wanted.failed.intersection(offered)


def test_a_few_that_are_fit_are_found_among_many() -> None:
    wanted = Wanted(failed=frozenset(f"n{number}" for number in range(998)))
    for seed in range(20):
        assert sorted(ids(strategy.offer(a_pool(1000), wanted, NOTHING, 0, Random(seed)))) == ["n998", "n999"]


def first_of(pool: Pool, wanted: Wanted = ANYBODY, rounds: int = 3000) -> Counter[str]:
    random = Random(7)
    found: Counter[str] = Counter()
    for turn in range(rounds):
        offer = strategy.offer(pool, wanted, NOTHING, turn, random)
        found[picking.pick(offer, {}, {}, random.random()) or ""] += 1
    return found


def test_round_robin_gives_each_its_turn() -> None:
    assert first_of(a_pool(5, "round_robin")) == dict.fromkeys([f"n{number}" for number in range(5)], 600)
    assert set(first_of(a_pool(100, "round_robin")).values()) == {30}


@pytest.mark.parametrize("count", [4, 40])
def test_weighted_and_random_follow_their_names(count: int) -> None:
    heavy = msgspec.structs.replace(a_pool(1).nodes[0], id="heavy", weight=count)
    pool = Pool((*a_pool(count).nodes, heavy), Policy(strategy="weighted"))
    assert first_of(pool)["heavy"] == pytest.approx(1500, rel=0.1)
    pool = Pool(pool.nodes, Policy(strategy="random"))
    assert first_of(pool)["heavy"] == pytest.approx(3000 / (count + 1), rel=0.35)


def test_a_session_stays_on_its_node_while_that_is_not_too_busy() -> None:
    pool = a_pool(50)
    (home,) = first_of(pool, Wanted(session=b"s", tenant="t"), 100)
    offer = strategy.offer(pool, Wanted(session=b"s", tenant="t"), NOTHING, 0, Random(1))
    assert offer.preferred == 2
    assert picking.pick(offer, dict.fromkeys(ids(offer), 10) | {home: 14}, {}, 0.5) == home
    away = picking.pick(offer, dict.fromkeys(ids(offer), 10) | {home: 30}, {}, 0.5)
    assert away == offer.places[1].id  # always the same one
    spread = {next(iter(first_of(pool, Wanted(session=b"s", tenant=f"{n}"), 1))) for n in range(40)}
    assert len(spread) > 15  # tenants share nothing


SYSTEM = {"role": "system", "content": "You answer in verse. " * 30}


def chat(*texts: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode([SYSTEM, *({"role": "user", "content": text} for text in texts)]))


def test_a_conversation_keeps_its_beginning() -> None:
    assert beginning(chat("a")) == beginning(chat("a", "b", "c" * 100_000))
    assert beginning(chat("a")) == beginning(chat("b"))
    short = [{"role": "user", "content": "Hello"}], [{"role": "user", "content": "Good morning"}]
    one, other = (beginning(msgspec.Raw(msgspec.json.encode(messages))) for messages in short)
    assert one != other
    assert beginning(msgspec.Raw(b'"' + b"x" * 5000 + b'"')) == beginning(msgspec.Raw(b'"' + b"x" * 2000 + b'y"'))


@pytest.mark.parametrize(
    ("how", "wanted", "expected"),
    [
        ("least_loaded", Wanted(user=b"u", prompt=chat("a")), None),
        ("least_loaded", Wanted(session=b"s", tenant="t"), b"session\0t\0s"),
        ("prefix_affinity", Wanted(session=b"s", user=b"u", tenant="t"), b"session\0t\0s"),
        ("prefix_affinity", Wanted(user=b"u", tenant="t", prompt=chat("a")), b"user\0t\0u"),
        ("prefix_affinity", Wanted(prompt=msgspec.Raw(b'"p"'), tenant="t"), b'prompt\0t\0"p"'),
        ("prefix_affinity", Wanted(), None),
        ("round_robin", Wanted(session=b"s"), None),
    ],
)
def test_what_a_request_is_hashed_by(how: Strategy, wanted: Wanted, expected: bytes | None) -> None:
    assert affinity.key(wanted, how) == expected


def test_the_ring_is_even_and_hardly_moves() -> None:
    names = [f"node-{number}" for number in range(100)]
    before = Ring(names)
    keys = [f"key-{number}".encode() for number in range(10_000)]
    homes = {key: before.order(key)[0] for key in keys}
    share = Counter(homes.values())
    assert max(share.values()) < 2 * 100
    ((gone, _),) = share.most_common(1)
    after = Ring(set(names) - {gone})
    moved = [key for key in keys if after.order(key)[0] != homes[key]]
    assert {homes[key] for key in moved} == {gone}  # only those whose node went
    assert sum(after.order(key)[0] == before.order(key)[1] for key in moved) > len(moved) / 2  # to who was next


def test_an_empty_ring_has_no_nodes() -> None:
    assert Ring([]).order(b"key") == []


@pytest.fixture
def connection(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.function_load("\n".join(file.read_text() for file in sorted(FUNCTIONS.iterdir())), replace=True)
        yield client


@given(
    places=st.lists(
        st.tuples(
            st.integers(0, 4),
            st.sampled_from([0.3, 1.0, 7.7]),
            st.sampled_from([0.0, 1 / 3, 1e6]),
            st.integers(0, 4),
            st.sampled_from([0, 999]),
        ),
        max_size=6,
    ),
    preferred=st.integers(0, 3),
    bound=st.sampled_from([0.0, 1.0, 1.25]),
    tokens=st.sampled_from([0, 12_345]),
    scale=st.sampled_from([0, 2048]),
    random=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_redis_picks_as_python_does(
    connection: Any,
    places: list[tuple[int, float, float, int, int]],
    preferred: int,
    bound: float,
    tokens: int,
    scale: int,
    random: float,
) -> None:
    key = leases_key(uuid.uuid4().hex)
    live, pending, offered = {}, {}, []
    with connection.pipeline(transaction=False) as pipeline:
        for number, (capacity, weight, bias, count, work) in enumerate(places):
            id = f"n{number}"
            live[id], pending[id] = count, count * work
            offered.append(Place(id, capacity, weight, bias))
            for other in range(count):
                pipeline.fcall("cl_assert", 1, key, f"{id}-{other}", 60_000, "{}", id, "[]", work)
        offer = Offer(tuple(offered), preferred, bound, tokens, scale)
        triples = [part for place in offered for part in (place.id, place.capacity, place.weight)]
        pipeline.fcall("cl_take", 1, key, "new", 60_000, "{}", offer.how(random), "", *triples)
        found = pipeline.execute()[-1]
        pipeline.fcall("cl_return", 1, key, "new", *(f"{id}-{n}" for id in live for n in range(live[id])))
        pipeline.execute()
    assert (found[0] if found else None) == picking.pick(offer, live, pending, random)
    assert list(connection.scan_iter(match=f"{key[:-6]}*", count=1000)) == []
