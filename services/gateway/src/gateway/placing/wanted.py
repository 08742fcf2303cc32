"""A request that looks for a node."""

import msgspec


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    tokens: int = 0
    """What it may take to work on."""
    region: str = ""
    """Where its environment is; empty is anywhere."""
    tenant: str = ""
    session: bytes = b""
    """Named by the client, so that its requests go to one node."""
    user: bytes = b""
    prompt: msgspec.Raw = msgspec.Raw()
    """What becomes the prompt, or the first of it, as JSON."""
    revision: str | None = None
    """Only weights of this one."""
    failed: frozenset[str] = frozenset()
    """Nodes that have failed it."""
