"""What is known of nodes beside the snapshot: how busy their engines say they are, and since when they are up."""

from collections.abc import Mapping

import msgspec

from common.routing import Load

IDLE = Load()


class Known(msgspec.Struct, frozen=True):
    loads: Mapping[str, Load] = {}
    """Of nodes whose engines have told lately."""
    up: Mapping[str, float | None] = {}
    """Since when nodes are ready; None: when we came they were."""
    now: float = 0.0

    def load(self, id: str) -> Load:
        return self.loads.get(id, IDLE)

    def ready_for(self, id: str) -> float | None:
        """Seconds; None is long."""
        since = self.up.get(id)
        return None if since is None else self.now - since
