from datetime import UTC, datetime

from common.breaker import Breaker, Policy, permitted
from common.events import NodeLost, NodeRegistered
from common.ids import new_id
from common.routing import Model, Node, Outcome
from scheduler.health import Seen, Spent
from scheduler.registry import Registry

T = datetime(2026, 1, 1, tzinfo=UTC)
M = (Model("demo-8b"),)
FIT = Seen(True, M, token=True)
BAD = Seen(False, reason="gone")
ROW = Node(id="n", endpoint="http://n")


def a_registry(*rows: Node) -> Registry:
    registry = Registry(new_id)
    registry.merge(rows)
    return registry


def permit(registry: Registry) -> None:
    """The node may be probed now."""
    breaker = registry.vitals["n"].breaker
    held = permitted(breaker, "me", breaker.until, Policy())
    assert held is not None
    registry.adopt("n", held, T)


def test_what_was_seen_outlives_reading_an_older_row() -> None:
    registry = a_registry(ROW)
    registry.saw("n", FIT, 0.0, T)
    registry.merge([Node(id="n", endpoint="http://n", weight=2.0)])
    assert registry.nodes == (Node(id="n", endpoint="http://n", weight=2.0, state="ready", models=M),)


def test_a_drain_is_not_undone_by_health() -> None:
    registry = a_registry(ROW)
    registry.saw("n", FIT, 0.0, T)
    registry.merge([Node(id="n", endpoint="http://n", state="draining")])
    registry.saw("n", FIT, 1.0, T)
    assert registry.nodes[0].state == "draining"


def test_a_node_removed_while_it_was_looked_at_stays_removed() -> None:
    registry = a_registry(ROW)
    registry.merge([])
    registry.saw("n", FIT, 0.0, T)
    assert registry.nodes == ()


def test_a_state_is_saved_only_after_its_event_went_out() -> None:
    registry = a_registry(ROW)
    registry.saw("n", FIT, 0.0, T)
    assert registry.saveable == []
    registry.told(registry.events[0])
    (vital,) = registry.saveable
    registry.saved(vital)
    assert registry.saveable == []


def test_what_changed_while_it_was_saved_is_saved_again() -> None:
    registry = a_registry(ROW)
    registry.saw("n", BAD, 0.0, T)
    (vital,) = registry.saveable
    registry.saw("n", Seen(False, reason="other"), 1.0, T)
    registry.saved(vital)
    assert [one.reason for one in registry.saveable] == ["other"]


def test_events_tell_of_the_first_readiness_and_of_each_loss() -> None:
    registry = a_registry(ROW)
    for seen in (FIT, BAD, BAD):
        registry.saw("n", seen, 0.0, T)
    permit(registry)
    for seen in (FIT, BAD, BAD, BAD):
        registry.saw("n", seen, 0.0, T)
    assert [type(event) for event in registry.events] == [NodeRegistered, NodeLost, NodeLost]


def test_a_node_whose_requests_fail_goes_while_another_serves_its_model() -> None:
    registry = a_registry(ROW, Node(id="o", endpoint="http://o"))
    for id in ("n", "o"):
        registry.saw(id, FIT, 0.0, T)
    assert registry.heard(Outcome("n", 0, 0, 5), T, 0.5)
    assert [node.state for node in registry.nodes] == ["unhealthy", "ready"]
    registry.heard(Outcome("o", 0, 0, 5), T, 0.5)
    assert registry.nodes[1].state == "ready"
    assert registry.vitals["o"].doubt


def test_late_results_of_an_older_epoch_change_nothing() -> None:
    registry = a_registry(ROW, Node(id="o", endpoint="http://o"))
    for id in ("n", "o"):
        registry.saw(id, FIT, 0.0, T)
    registry.heard(Outcome("n", 0, 0, 5), T, 0.5)
    permit(registry)
    registry.saw("n", FIT, 0.0, T)
    before = registry.vitals["n"]
    assert before.node.state == "ready"
    for epoch in range(before.node.epoch):
        assert not registry.heard(Outcome("n", epoch, 0, 100), T, 0.5)
    assert registry.vitals["n"] == before


def test_an_heir_takes_the_breakers_over() -> None:
    registry = Registry(new_id)
    row = Node(id="n", endpoint="http://n", state="ready", models=M)
    registry.merge([row], {"n": Breaker(state="open", epoch=7, until=1.0)})
    assert (registry.nodes[0].state, registry.nodes[0].epoch) == ("unhealthy", 7)
    assert registry.saveable


def test_what_probes_cost_is_counted_by_hour() -> None:
    registry = a_registry(ROW)
    cost = (Spent("demo-8b", 4, 1, answered=True), Spent("demo-8b"))
    for hour in (0, 0, 1):
        registry.saw("n", Seen(True, M, token=True, spent=cost), 0.0, T.replace(hour=hour, minute=59))
    counted = {(hour.hour, kind): count for (_, hour, _, kind), count in registry.spent.items()}
    assert (counted[0, "requests"], counted[0, "unanswered"]) == (4, 2)
    assert (counted[0, "input_tokens"], counted[1, "output_tokens"]) == (8, 1)
