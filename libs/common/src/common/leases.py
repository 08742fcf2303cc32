"""The contract between gateways and scheduler about live requests in Redis.

A lease is one live request's slot on a node and its write-ahead record: who asked, for what, and how far it has come.
The server-side functions (library `crosslogic`, loaded by the scheduler) are called with one key, `<namespace>:leases`;
the namespace is in braces so that all keys share a Redis Cluster slot. Times are Redis's clock, in milliseconds.

| function | arguments after the key | answer |
|---|---|---|
| `cl_take` | id, ttl, intent, random < 1, (node, capacity, weight)… | `[node, its live requests]`; `[]`: all are full |
| `cl_renew` | ttl, then (id, progress)… | ids without a lease |
| `cl_assert` | id, ttl, intent, node, progress | 1 |
| `cl_return` | id… | how many were held |
| `cl_reap` | limit, claim | `[[id, intent, progress, node], …]`, expired and now claimed for `claim` ms |
| `cl_settle` | id… | how many were dropped; a lease renewed since it was reaped stays |
| `cl_load` | node… | live requests of each |

`cl_take` for an id whose lease is live on one of the offered nodes extends it and answers that node again; otherwise
the lease moves, keeping its progress. After `[]` it stays where it was, being the record of what has been delivered:
every id that was ever taken is returned in the end. Capacity 0 is no limit. Among equals of (live + 1) / weight the
random number chooses. A lease that expired frees its slot at once; until a reaper has settled it, `cl_renew` revives
it, even over the node's capacity.
"""

from datetime import datetime

import msgspec

LIBRARY = "crosslogic"


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """What has been delivered to the client so far."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    first_token_at: datetime | None = None
    attempts: int = 1


def leases_key(namespace: str) -> str:
    return f"{{{namespace}}}:leases"
