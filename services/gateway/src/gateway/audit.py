"""What the audit log says, and the chain of hashes that shows whether it was changed afterwards. Pure."""

import hashlib
from datetime import datetime
from uuid import UUID

import msgspec

FIRST = "0" * 64
"""What the first entry's `prev_hash` is."""


class Author(msgspec.Struct, frozen=True):
    """Who is doing what, from where, in which request."""

    actor: str
    """`root`, `operator:<name>`, `user:<email>`, or `unknown` for one who was not let in."""
    action: str
    """Method and route, `DELETE /admin/api-keys/{key_id}`."""
    address: str
    request_id: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    time: datetime
    actor: str
    action: str
    target: str
    """What it was done to: the id, or the path of a call that another service answers."""
    tenant_id: UUID | None
    status: int | None
    """HTTP's; None while a call is being forwarded: a later entry of the same request has its outcome."""
    count: int = 1
    """Above 1: so many denied calls, which are not told one by one."""
    address: str
    request_id: str
    before_sha256: str | None = None
    """Of what was there, as JSON without secrets; None where nothing was."""
    after_sha256: str | None = None
    """Of what is there now; of the request's body when another service answers it."""


class Sealed(Entry, frozen=True, kw_only=True):
    seq: int
    prev_hash: str
    hash: str


def entry(
    author: Author,
    id: UUID,
    now: datetime,
    *,
    target: object,
    tenant_id: UUID | None,
    status: int | None,
    before: object = None,
    after: object = None,
) -> Entry:
    return Entry(
        id=id,
        time=now,
        actor=plain(author.actor),
        action=plain(author.action),
        target=plain(str(target)),
        tenant_id=tenant_id,
        status=status,
        address=plain(author.address),
        request_id=author.request_id,
        before_sha256=digest(before),
        after_sha256=digest(after),
    )


def seal(entry: Entry, seq: int, prev_hash: str) -> Sealed:
    fields = {field: getattr(entry, field) for field in Entry.__struct_fields__}
    canonical = msgspec.json.encode({**fields, "seq": seq}, order="sorted")
    hash = hashlib.sha256(bytes.fromhex(prev_hash) + canonical).hexdigest()
    return Sealed(**fields, seq=seq, prev_hash=prev_hash, hash=hash)


def first_bad(entries: list[Sealed], seq: int, prev_hash: str) -> int | None:
    """The first number at which the chain is broken; `seq` and `prev_hash` are of the entry before these."""
    for found in entries:
        seq += 1
        if found.seq != seq or found != seal(found, seq, prev_hash):
            return seq
        prev_hash = found.hash
    return None


def digest(content: object) -> str | None:
    """SHA-256 in hex of bytes, or of a value as JSON with sorted keys."""
    if content is None:
        return None
    body = content if isinstance(content, bytes) else msgspec.json.encode(content, order="sorted")
    return hashlib.sha256(body).hexdigest()


def plain(text: str) -> str:
    """What Postgres can store, in one line of bounded length."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:500])
    return clean.encode("utf-8", "replace").decode()
