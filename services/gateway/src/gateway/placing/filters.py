"""Why a node cannot have a request at all."""

from common.routing import Node, Policy
from gateway.placing.region import elsewhere
from gateway.placing.wanted import Wanted


def reason(node: Node, wanted: Wanted, policy: Policy) -> str | None:
    """None: it can. What is full is not known here, but in Redis."""
    if node.state != "ready":
        return f"it is {node.state}"
    if node.id in wanted.failed:
        return "it has failed this request"
    if wanted.revision is not None and node.revision != wanted.revision:
        return "its weights are of another revision"
    if policy.region == "require" and elsewhere(node, wanted):
        return "it is in another region"
    return None
