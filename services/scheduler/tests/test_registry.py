from datetime import UTC, datetime

from common.events import NodeLost, NodeRegistered
from common.ids import new_id
from common.routing import Model, Node
from scheduler.health import Seen
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
    for seen in (FIT, BAD, BAD, BAD, FIT, BAD, BAD):
        registry.saw("n", seen, 0.0, T)
    assert [type(event) for event in registry.events] == [NodeRegistered, NodeLost, NodeLost]
