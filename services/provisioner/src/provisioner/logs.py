"""What a launch says while it happens, part by part, from the launcher that makes it."""

from collections.abc import Mapping
from uuid import UUID

import msgspec

from common.db import Pool, transaction
from common.errors import NotFound, Unavailable
from provisioner import launch_store
from provisioner.launcher import Launcher, LogPart


class Logs:
    def __init__(self, pool: Pool, launchers: Mapping[str, Launcher]) -> None:
        self._pool, self._launchers = pool, launchers

    async def part(self, id: UUID, offset: int) -> LogPart:
        """From `offset`, which is 0 or what the part before told; `done` once nothing more will come.

        Raises NotFound, Unavailable.
        """
        async with transaction(self._pool) as connection:
            found = await launch_store.told(connection, id=id)
        if not found:
            raise NotFound("there is no such launch", param="id")
        launch = found[0]
        launcher = self._launchers.get(launch.launcher)
        if launcher is None:
            raise Unavailable(f"the launcher {launch.launcher} is not set up here")
        part = await launcher.log(launch.cluster, offset)
        ended = launch.ended_at is not None and not part.text
        return msgspec.structs.replace(part, done=ended)
