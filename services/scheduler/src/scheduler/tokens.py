"""The token by which a node's agent speaks for its node, and for no other: issued once, kept as a digest."""

import hashlib
import hmac
import secrets

from common.db import Connection
from common.errors import InvalidApiKey
from common.routing import State

PREFIX = "node_"


def new() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def issue(connection: Connection, id: str, token: str, *, again: bool) -> bool:
    """Make it the node's token, in the place of the one before only with `again`. Returns whether it is."""
    status = await connection.execute(
        "update scheduler.nodes set token_sha256 = $2 where id = $1 and ($3 or token_sha256 is null)",
        id,
        digest(token),
        again,
    )
    return status == "UPDATE 1"


async def check(connection: Connection, id: str, sha256: str | None) -> None:
    """`sha256`: of the token that was given, in hex. Raises InvalidApiKey, for a node that there is not, too."""
    known = await connection.fetchval("select token_sha256 from scheduler.nodes where id = $1", id)
    if known is None or sha256 is None or not hmac.compare_digest(known.hex(), sha256):
        raise InvalidApiKey("this token is not the node's")


async def beat(connection: Connection, id: str) -> State:
    """Note that the node's agent lives; returns the node's state."""
    state: State = await connection.fetchval(
        "update scheduler.nodes set last_heartbeat_at = now() where id = $1 returning state", id
    )
    return state
