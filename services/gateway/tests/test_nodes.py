import pytest

from common.errors import NotFound
from common.routing import Model, Node, Snapshot
from gateway.nodes import Nodes

NODE = Node(id="n", endpoint="http://n", state="ready", models=(Model("served", 4096),))


def test_a_deployed_model_without_a_node_is_known() -> None:
    nodes = Nodes()
    nodes.replace(Snapshot(1, (NODE,), ("asleep", "served")))
    assert nodes.serving("asleep") == ()
    assert nodes.serving("served") == (NODE,)
    assert nodes.models == (Model("asleep"), Model("served", 4096))


def test_a_model_that_nobody_deployed_is_not() -> None:
    nodes = Nodes()
    nodes.replace(Snapshot(1, (NODE,)))
    with pytest.raises(NotFound, match="`asleep`"):
        nodes.serving("asleep")
