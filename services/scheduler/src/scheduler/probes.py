"""Postgres: what the scheduler's own requests have cost, by node and hour. Functions take the connection first."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from common.db import Connection
from common.probed import Probed

KINDS = ("requests", "unanswered", "input_tokens", "output_tokens")


async def add(connection: Connection, counts: Mapping[tuple[str, datetime, str, str], int]) -> None:
    """`counts` by node, hour, model and one of `KINDS`."""
    rows: defaultdict[tuple[str, datetime, str], dict[str, int]] = defaultdict(dict)
    for (node, hour, model, kind), count in counts.items():
        rows[node, hour, model][kind] = count
    keys = sorted(rows)
    await connection.execute(
        """
        insert into scheduler.probes as known (node_id, hour, model, requests, unanswered, input_tokens, output_tokens)
        select * from unnest($1::text[], $2::timestamptz[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
                             $7::bigint[])
        on conflict (node_id, hour, model) do update set
            requests = known.requests + excluded.requests,
            unanswered = known.unanswered + excluded.unanswered,
            input_tokens = known.input_tokens + excluded.input_tokens,
            output_tokens = known.output_tokens + excluded.output_tokens
        """,
        *([key[part] for key in keys] for part in range(3)),
        *([rows[key].get(kind, 0) for key in keys] for kind in KINDS),
    )


async def between(connection: Connection, first: datetime, last: datetime) -> list[Probed]:
    """Of the hours from `first` to before `last`."""
    rows = await connection.fetch(
        """
        select node_id, hour, model, requests, unanswered, input_tokens, output_tokens
        from scheduler.probes where hour >= $1 and hour < $2 order by hour, node_id, model
        """,
        first,
        last,
    )
    return [Probed(**row) for row in rows]
