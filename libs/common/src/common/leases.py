"""The contract between gateways and scheduler about live requests in Redis.

A lease is one live request's slot on a node and its write-ahead record: who asked, for what, and how far it has come.
The server-side functions (library `crosslogic`, loaded by the scheduler) are called with one key, `<namespace>:leases`;
the namespace is in braces so that all keys share a Redis Cluster slot. Times are Redis's clock, in milliseconds.

| function | arguments after the key | answer |
|---|---|---|
| `cl_take` | id, ttl, intent, *how*, line, (node, capacity, weight)… | `[node, its live requests]`; `[]`: full |
| `cl_admit` | id, ttl, intent, *how*, line, *admission*, (node, capacity, weight)… | `[kind, which, number, …]` |
| `cl_renew` | ttl, then (id, progress)… | ids without a lease |
| `cl_assert` | id, ttl, intent, node, progress[, tokens[, *admission*]] | 1 |
| `cl_return` | id… | how many were held; they have used nothing |
| `cl_end` | (id, tokens, cost)… | how many were held; they have used this |
| `cl_reap` | limit, claim | `[[id, intent, progress, node], …]`, expired and now claimed for `claim` ms |
| `cl_settle` | id… | how many were dropped; a lease renewed since it was reaped stays |
| `cl_load` | node… | live requests of each |
| `cl_pending` | node… | tokens that each has pending |
| `cl_unrecorded` | scope | `[version, [id, …]]` |
| `cl_record` | scope, version, n, n × (budget, spent), id… | 1; 0 when a later version is known |
| `cl_held` | scope… | `[[held, spent and not recorded], …]` |
| `cl_wait` | id, ttl, intent, *how*, *waiter*, *admission*, (node, capacity, weight)… | as `cl_admit` |
| `cl_offer` | line, (node, capacity, weight)… | how many got a slot; at 100 there may be more to get |
| `cl_waiting` | ttl, id… | (id, node) of those who have got a slot, (id, "") of those who are not known |
| `cl_leave` | id… | how many; they have used nothing, and have no slot any more |
| `cl_queue` | | `[[line, waiting, ms that the first has waited, ms between slots, [flow, waiting, …]], …]` |

`cl_take` for an id whose lease is live on one of the offered nodes extends it and answers that node again; otherwise
the lease moves, keeping its progress. After `[]` it stays where it was, being the record of what has been delivered:
every id that was ever taken is returned in the end. Capacity 0 is no limit. A lease that expired frees its slot at
once; until a reaper has settled it, `cl_renew` revives it, even over the node's capacity.

*how* is one argument: `random tokens scale preferred bound bias…`, numbers apart by a space, of which those at the
end may be missing. A node's load is (live + 1 + (pending + tokens) / scale + its bias) / weight: `tokens` is what the
request may take to work on, pending is the sum of that of all leases on the node, and scale 0 leaves both out. The
first `preferred` nodes are tried in their order: one is taken if it has room, and if its load is no more than `bound`
(unless that is 0) times the average of all offered, and 2 more. Otherwise the least load is; among equals `random` < 1
chooses.

`cl_admit` is `cl_take` for a request that has no lease yet, and decides limits, budgets and slot together: all of them
are taken, or none. Its *admission* is: tokens (estimated), n, n × (layer, requests a minute, tokens a minute,
concurrency; 0 is no limit), scope, API key, amount, version, n, n × (budget, spent, limit). `kind` of the answer is

- `ok`: `which` is the node, `number` its live requests;
- `requests`, `tokens`, `concurrency`: the layer numbered `which` from 1 refuses, for `number` ms from now;
- `budget`: the amount does not fit into the budget numbered `which`; `number` > 0 is when holds may be released;
- `full`: nothing is in the way but the nodes.

`cl_assert` writes a lease that Redis has lost, for a request that runs, and charges its *admission* whatever the limits
say, but for the request itself, which has begun before; a lease that is there keeps what it was charged.

`standing` is limit, remaining and ms until all of it is there again, of the layer with the fewest requests remaining,
then the same of tokens; limit -1 is none. A minute's allowance is a bucket that drains evenly: at once it takes the
whole allowance, in t minutes 1 + t of it. A running request's estimate stays reserved until its lease ends; then what
it used takes its place, over the limit if need be. A layer's concurrency is its live leases.

Where there is no room a request may wait, in a line (a model's name) and in it in a flow (its tenant and class).
`cl_take` and `cl_admit` find a line full in which somebody waits already; "" asks past the line. The *waiter* of
`cl_wait` is: line, flow, weight, ms that it has waited already, ms until its deadline, the most that may wait in the
line, the most of a flow, channel. Limits and budgets refuse it at once, as `cl_admit` does, and are charged while it
waits. `kind` of the answer may also be

- `wait`: `number` is ms until its turn, as slots have come lately; 0 is unknown;
- `crowded`: too many wait, or too many of its flow for the room that is left; `number` as above;
- `late`: its turn would come long after its deadline; `number` as above.

A slot that is given back, or is on offer in `cl_offer`, becomes the lease of whose turn it is in the same step, and its
id is pushed to the list `<namespace>:granted:<channel>`. Until `cl_waiting` has told it, the lease is no record: if it
expires, nothing is settled. Waiters vanish when `cl_waiting` has not named them for their ttl. Turns go by weighted
deficit round robin over flows, in tokens, whatever the flow's class: a class is a weight.

Money is whole micro-dollars; amounts are rounded up and limits down. A request's `amount` is held in its scope (the
tenant) until its lease ends: then its cost takes the place of the hold (when a reaper ends it, the hold's full
amount), until `cl_record` brings billing's sums together with the ids that they include. Budgets named `key:…` count
what the API key's requests hold, others what the scope's hold. What `cl_admit` passes as spent counts only until the
first `cl_record`.
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


class Layer(msgspec.Struct, frozen=True):
    """What `cl_admit` limits; 0 is no limit."""

    key: str
    requests: int = 0
    tokens: int = 0
    concurrency: int = 0


def leases_key(namespace: str) -> str:
    return f"{{{namespace}}}:leases"


def granted_key(namespace: str, channel: str) -> str:
    return f"{{{namespace}}}:granted:{channel}"


def line_of(model: str, region: str = "") -> str:
    """The line of those who wait for the same nodes: a model's, or its in a region that they must not leave."""
    return f"{model}\x1f{region}" if region else model


def model_of(line: str) -> str:
    return line.partition("\x1f")[0]


def region_of(line: str) -> str:
    return line.partition("\x1f")[2]
