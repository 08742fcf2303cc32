"""What follows from what is wanted and what is there, case by case."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.deployments import Spec
from provisioner import reconcile
from provisioner.choosing import Ended, ordered
from provisioner.launcher import Candidate
from provisioner.reconcile import Desired, Launch, Observation, Patience, State, diff

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ID = UUID(int=1)
SPOT = Candidate(cloud="aws", region="us-east-1", accelerator="L4", count=1, spot=True, hourly_microusd=350_000)
SPOT_WEST = Candidate(cloud="aws", region="us-west-2", accelerator="L4", count=1, spot=True, hourly_microusd=450_000)
STEADY = Candidate(cloud="aws", region="us-east-1", accelerator="L4", count=1, hourly_microusd=980_000)


def wanted(count: int, **fields: Any) -> Desired:
    return Desired(id=ID, wanted=count, **{"generation": 1, "offers": (SPOT, SPOT_WEST, STEADY), **fields})


def a_launch(slot: int, state: State, generation: int = 1, age: float = 10, **fields: Any) -> Launch:
    values = {
        "id": UUID(int=100 + slot),
        "deployment_id": ID,
        "epoch": 1,
        "cluster": f"c{slot}",
        "launcher": "sky",
        "candidate": SPOT,
        "state_at": NOW - timedelta(seconds=age),
        "ready_at": NOW - timedelta(seconds=age) if state in ("ready", "draining") else None,
    }
    return Launch(**values | fields, slot=slot, state=state, generation=generation)


def a_failure(candidate: Candidate, age: float, failure: Any = "capacity", generation: int = 1) -> Ended:
    fields = {name: getattr(candidate, name) for name in ("cloud", "region", "accelerator", "count", "spot")}
    at = NOW - timedelta(seconds=age)
    return Ended(deployment_id=ID, generation=generation, failure=failure, at=at, **fields)


def brief(
    desired: Desired | None,
    launches: Sequence[Launch],
    ended: Sequence[Ended] = (),
    observed: Observation | None = None,
    unhealthy: dict[UUID, datetime] | None = None,
) -> list[str]:
    seen = {"sky": observed} if observed else {}
    found = []
    for decision in diff([desired] if desired else [], launches, seen, ended, unhealthy or {}, NOW, Patience()):
        match decision:
            case reconcile.Start(_, slot, generation, candidate):
                kind = "spot" if candidate.spot else "steady"
                found.append(f"start {slot} g{generation} {kind} {candidate.region}")
            case reconcile.Drain(launch, reason):
                found.append(f"drain {launch.slot}: {reason}")
            case reconcile.End(launch, reason, failure):
                found.append(f"end {launch.slot}: {reason}" + (f" ({failure})" if failure else ""))
            case reconcile.Wait(_, reason):
                found.append(f"wait: {reason}")
    return found


FEWER = "fewer replicas are wanted"
OLD = "replaced by a new generation"
UP, UP1, UP2 = a_launch(0, "ready"), a_launch(1, "ready"), a_launch(2, "ready")


@pytest.mark.parametrize(
    ("desired", "launches", "expected"),
    [
        (wanted(0), [], []),
        (wanted(2), [], ["start 0 g1 spot us-east-1", "start 1 g1 spot us-east-1"]),
        (wanted(2), [UP], ["start 1 g1 spot us-east-1"]),
        (wanted(2), [UP1], ["start 0 g1 spot us-east-1"]),
        (wanted(1), [a_launch(0, "intended")], []),
        (wanted(1), [a_launch(0, "launching")], []),
        (wanted(1), [a_launch(0, "draining")], ["start 1 g1 spot us-east-1"]),
        (wanted(1), [a_launch(0, "ending")], ["start 1 g1 spot us-east-1"]),
        (wanted(1), [UP, UP1], [f"drain 1: {FEWER}"]),
        (wanted(1), [UP, a_launch(1, "launching")], [f"end 1: {FEWER}"]),
        (wanted(1), [a_launch(0, "warming"), UP1], [f"end 0: {FEWER}"]),
        (wanted(0), [UP, a_launch(1, "draining")], [f"drain 0: {FEWER}"]),
        (wanted(2, spent=True), [UP], ["drain 0: the month's cost cap is reached"]),
        (None, [UP, a_launch(1, "ending")], ["end 0: its deployment is gone"]),
        (wanted(1, offers=None), [], ["wait: the launcher does not say what it has"]),
        (wanted(1, offers=()), [], ["wait: no cloud that is enabled has such a machine"]),
        (wanted(2, on_demand=1), [], ["start 0 g1 steady us-east-1", "start 1 g1 spot us-east-1"]),
        (wanted(2, on_demand=1), [UP], ["start 1 g1 steady us-east-1"]),
        (
            wanted(3, max_hourly_microusd=800_000),
            [UP],
            [
                "start 1 g1 spot us-east-1",
                "wait: one more machine would cost more an hour than max_hourly_usd allows",
            ],
        ),
    ],
)
def test_counts(desired: Desired | None, launches: list[Launch], expected: list[str]) -> None:
    assert brief(desired, launches) == expected


NEW = {"generation": 2, "good_generation": 1}


@pytest.mark.parametrize(
    ("desired", "launches", "expected"),
    [
        (wanted(2, **NEW), [UP, UP1], ["start 2 g2 spot us-east-1"]),
        (wanted(2, **NEW), [UP, UP1, a_launch(2, "warming", 2)], []),
        (wanted(2, **NEW), [UP, UP1, a_launch(2, "ready", 2)], [f"drain 1: {OLD}"]),
        (wanted(2, **NEW), [UP, a_launch(1, "draining"), a_launch(2, "ready", 2)], ["start 3 g2 spot us-east-1"]),
        (wanted(2, **NEW), [UP, a_launch(2, "ready", 2), a_launch(3, "ready", 2)], [f"drain 0: {OLD}"]),
        (wanted(2, **NEW), [UP, a_launch(1, "launching")], ["start 2 g2 spot us-east-1"]),
        (wanted(0, **NEW), [UP], [f"drain 0: {OLD}"]),
    ],
)
def test_a_new_generation_is_ready_before_the_old_one_drains(
    desired: Desired, launches: list[Launch], expected: list[str]
) -> None:
    assert brief(desired, launches) == expected


def test_a_failed_rollout_keeps_the_old_and_replaces_losses_with_it() -> None:
    failures = [a_failure(SPOT, age, "broken", 2) for age in (3000, 2000, 1000)]
    assert brief(wanted(2, **NEW), [UP, UP1, a_launch(2, "launching", 2)], failures) == [f"end 2: {OLD}"]
    assert brief(wanted(2, **NEW), [UP], failures) == ["start 1 g1 spot us-east-1"]
    success = [*failures, a_failure(SPOT, 500, None, 2)]
    assert brief(wanted(2, **NEW), [UP, UP1], success) == ["start 2 g2 spot us-east-1"]


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        ([a_failure(SPOT, 30)], "start 0 g1 spot us-west-2"),
        ([a_failure(SPOT, 30), a_failure(SPOT_WEST, 20)], "start 0 g1 steady us-east-1"),
        (
            [a_failure(SPOT, 30), a_failure(SPOT_WEST, 20), a_failure(STEADY, 10)],
            "wait: no capacity anywhere; tried again at 12:00:30 UTC",
        ),
        ([a_failure(SPOT, 61)], "start 0 g1 spot us-east-1"),
        ([a_failure(SPOT, 200), a_failure(SPOT, 61)], "start 0 g1 spot us-west-2"),
        ([a_failure(SPOT, 61), a_failure(SPOT, 30, None)], "start 0 g1 spot us-east-1"),
        # a region that fails three times in a row, in whatever way, rests altogether
        ([a_failure(SPOT, 90), a_failure(STEADY, 80), a_failure(SPOT, 70)], "start 0 g1 spot us-west-2"),
        ([a_failure(SPOT, 0.5, "broken")], "wait: its machines fail to come up; tried again at 12:00:00 UTC"),
        ([a_failure(SPOT, 2, "broken")], "start 0 g1 spot us-east-1"),
    ],
)
def test_refused_machines_rest_and_the_next_choice_is_tried(ended: list[Ended], expected: str) -> None:
    assert brief(wanted(1), [], ended) == [expected]


@pytest.mark.parametrize(
    ("launch", "machines", "expected"),
    [
        (a_launch(0, "launching", age=1801), {"c0": True}, ["end 0: it was not up within 1800 s (broken)"]),
        (a_launch(0, "warming", age=1801), {"c0": True}, ["end 0: its engine did not answer within 1800 s (broken)"]),
        (a_launch(0, "draining", age=901, reason="r"), {"c0": True}, ["end 0: r"]),
        (a_launch(0, "ready", age=10**6), {"c0": True}, []),
        (a_launch(0, "ready", age=100), {}, ["end 0: its machine is gone"]),
        (a_launch(0, "ready", age=100), {"c0": False}, ["end 0: its machine is gone"]),
        (a_launch(0, "ready", age=50), {}, ["end 0: its machine is gone (broken)"]),
        (a_launch(0, "warming"), {}, ["end 0: its machine is gone (broken)"]),
        (a_launch(0, "launching"), {}, []),
        (a_launch(0, "draining"), {}, ["end 0: its machine is gone"]),
        (a_launch(0, "ready", age=2), {}, []),  # seen before it was ready
    ],
)
def test_time_and_the_launchers_own_listing_end_launches(
    launch: Launch, machines: dict[str, bool], expected: list[str]
) -> None:
    seen = Observation(NOW - timedelta(seconds=5), machines)
    found = brief(wanted(1), [launch], observed=seen)
    assert [one for one in found if not one.startswith("start")] == expected
    assert bool(expected) == any(one.startswith("start") for one in found) or launch.state == "draining"


def test_a_launcher_that_does_not_answer_loses_no_node() -> None:
    assert brief(wanted(1), [a_launch(0, "ready", age=10**6)], observed=None) == []


def test_a_node_that_stays_unhealthy_is_replaced() -> None:
    launch = a_launch(0, "ready", age=1000)
    since = {launch.id: NOW - timedelta(seconds=121)}
    assert brief(wanted(1), [launch], unhealthy=since) == [
        "end 0: its engine does not answer any more",
        "start 0 g1 spot us-east-1",
    ]


@given(
    st.integers(0, 4),
    st.lists(
        st.tuples(
            st.sampled_from(["intended", "launching", "warming", "ready", "draining", "ending"]), st.integers(1, 2)
        ),
        max_size=6,
    ),
)
def test_never_more_than_wanted_and_one_to_replace_with(count: int, kinds: list[tuple[State, int]]) -> None:
    launches = [a_launch(slot, state, generation) for slot, (state, generation) in enumerate(kinds)]
    desired = wanted(count, **NEW)
    decisions = diff([desired], launches, {}, [], {}, NOW, Patience())
    starts = [d for d in decisions if isinstance(d, reconcile.Start)]
    rising = [one for one in launches if one.state in reconcile.RISING]
    gone = [d.launch for d in decisions if isinstance(d, reconcile.Drain | reconcile.End)]
    assert len({d.slot for d in starts} | {one.slot for one in launches}) == len(starts) + len(launches)
    if starts:
        assert len(rising) + len(starts) <= count + 1
    serving = [one for one in rising if one.state == "ready"]
    kept = [one for one in serving if one not in gone]
    assert len(kept) >= min(count, len(serving))  # nothing that serves goes while it is needed


def test_the_order_is_accelerator_then_spot_then_price() -> None:
    spec = Spec(name="a", model="m", accelerators=({"L4": 1}, {"H100": 1}))
    dear = Candidate(cloud="aws", region="r", accelerator="H100", count=1, choice=1, spot=True, hourly_microusd=1)
    assert ordered(spec, [dear, STEADY, SPOT_WEST, SPOT]) == [SPOT, SPOT_WEST, STEADY, dear]
