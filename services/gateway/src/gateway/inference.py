"""One inference request, from a parsed body to its last byte. Everything that bills goes through here."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from common.errors import ApiError, Forbidden, NoCapacity, Overloaded, Unavailable, UpstreamError, UpstreamTimeout
from common.events import Outcome
from gateway import errors
from gateway import leg as legs
from gateway.admission import Admission, Entry
from gateway.body import Endpoint, Prepared, salted
from gateway.client import Headers
from gateway.connection import Broken
from gateway.endpoints import TABLE
from gateway.errors import Elsewhere, Refused
from gateway.kept import Kept
from gateway.leg import Cut, Leg
from gateway.live import Caller, Live
from gateway.outcomes import Outcomes
from gateway.placement import Placed, Placement
from gateway.placing.wanted import Wanted
from gateway.queue import Queue
from gateway.relay import Relay
from gateway.reply import Reply
from gateway.resume import Rest
from gateway.settlement import Settlement
from gateway.sse import ReplyStream
from gateway.tokenizer import Tokenizer
from gateway.upstream import Exchange, Overdue, Stalled, Upstream
from gateway.waiter import SHARES, Waiter, flow_of

NO_ROOM = ("overloaded", "no_capacity")

WELL: dict[Outcome | None, bool] = {"completed": True, "upstream_lost": False}
"""Whether a node has done its part, where a request's outcome says it."""


class Inference:
    def __init__(
        self,
        outcomes: Outcomes,
        admission: Admission,
        placement: Placement,
        upstream: Upstream,
        settlement: Settlement,
        tokenizer: Tokenizer,
        max_attempts: int,
        continues: bool,
        queue: Queue,
        comments: tuple[float, float] = (5.0, 10.0),
    ) -> None:
        """`comments`: seconds after which the client of a stream that waits is told so, and between two times."""
        self._outcomes = outcomes
        self._admission = admission
        self._placement = placement
        self._upstream = upstream
        self._settlement = settlement
        self._tokenizer = tokenizer
        self._max_attempts = max_attempts
        self._continues = continues
        self._queue = queue
        self._comments = comments

    async def answer(
        self,
        id: UUID,
        caller: Caller,
        endpoint: Endpoint,
        prepared: Prepared,
        reply: Reply,
        traceparent: str | None = None,
        patience: float | None = None,
    ) -> None:
        """Answer on `reply`; raises ApiError only before its first byte.

        `patience`: seconds that the client would wait for a slot.

        Cancel it when the client has gone: that aborts the engine, and the settlement is not the request's to cancel.
        """
        if caller.models is not None and prepared.model not in caller.models:
            raise Forbidden(f"this key may not use `{prepared.model}`", param="model", code="model_not_allowed")
        live = Live(
            id=id,
            caller=caller,
            model=prepared.model,
            endpoint=endpoint,
            streamed=prepared.stream,
            started_at=datetime.now(UTC),
        )
        live.traceparent = traceparent
        prepared = salted(prepared, endpoint, str(caller.tenant_id))
        entry = self._admission.entry(caller, endpoint, prepared, TABLE[endpoint].billed, live.started_at)
        live.price, live.ask = entry.price, entry.ask
        self._settlement.begin(live)
        try:
            await self._attempts(live, endpoint, entry, reply, patience)
        except asyncio.CancelledError:
            if live.outcome is None and live.reached_engine:
                live.outcome = "client_disconnected"
            raise
        finally:
            if not TABLE[endpoint].billed:
                live.outcome = None
            ask = self._tokenizer.of(endpoint, prepared) if live.uncounted else None
            self._settlement.end(live, ask)

    async def _attempts(
        self, live: Live, endpoint: Endpoint, entry: Entry, reply: Reply, patience: float | None
    ) -> None:
        prepared = entry.prepared
        rest: Rest | None = None
        wanted = _wanted(live.caller, entry)
        last: ApiError | None = None
        left = self._max_attempts
        while left > 0:
            left -= 1
            placed: Placed | None = None
            try:
                placed = await self._place(live, entry, wanted, reply, patience)
            except ApiError:
                if last is None:
                    raise
                break
            finally:
                self._outcomes.placed(live.lease_id, placed.node if placed else None)
            node, well = placed.node, None
            live.node_id, live.attempts = node.id, live.attempts + 1
            if rest is None:
                leg = legs.first(endpoint, prepared, continues=self._continues and node.continuation)
            else:
                leg = legs.after(rest)
            self._placement.live[node.id] += 1
            try:
                exchange = await self._upstream.send(node, leg.path, leg.body, live.lease_id, live.traceparent)
                try:
                    await self._exchange(live, exchange, leg, reply)
                    well = WELL.get(live.outcome)
                    return
                finally:
                    exchange.close(done=live.outcome == "completed")
            except Cut as cut:
                last, left, well = cut.error, self._max_attempts, False
                rest = Rest(prepared, endpoint, cut.stream, self._placement.max_model_len(live.model))
                if rest.body is None:
                    live.outcome = "completed"
                    reply.part(rest.closing())
                    reply.end()
                    return
                wanted = msgspec.structs.replace(wanted, revision=node.revision)
            except Stalled as error:
                last = UpstreamTimeout(str(error))
                if isinstance(error, Overdue):
                    break
                well = False
            except Broken as error:
                last, well = UpstreamError(str(error)), False
            except Refused as refused:
                if reply.started:
                    last = refused.error
                    break
                live.reached_engine = False
                raise refused.error from refused
            except Elsewhere as elsewhere:
                last = elsewhere.error
                well = None if isinstance(last, NoCapacity) else False
            finally:
                self._placement.live[node.id] -= 1
                self._outcomes.saw(node, live.lease_id, well)
            live.reached_engine = reply.started
            wanted = msgspec.structs.replace(wanted, failed=wanted.failed | {node.id})
        live.outcome = "upstream_lost"
        last = last or NoCapacity(f"no node serves `{live.model}`", retry_after=5)
        if live.stream is None or not reply.started:
            raise last
        reply.part(live.stream.told(last))
        reply.end()

    async def _place(self, live: Live, entry: Entry, wanted: Wanted, reply: Reply, patience: float | None) -> Placed:
        if wanted.failed:
            return await self._placement.place(live.lease_id, live.model, live.intent, wanted)
        kept = list(reply.headers)

        def tell(headers: Headers) -> None:
            reply.headers = [*kept, *headers]

        # even before the answer: a hang-up, or Redis's silence, may come in between
        live.leased = True
        try:
            return await self._placement.admit(live.lease_id, live.model, live.intent, entry.ask, tell, wanted)
        except (Overloaded, NoCapacity) as error:
            if isinstance(error, Unavailable):
                raise
            live.leased = False
            patience = (
                self._queue.patience(live.model, self._placement.bound(live.model, wanted.region), patience)
                if error.code in NO_ROOM
                else 0.0
            )
            if patience <= 0:
                raise
            self._outcomes.placed(live.lease_id, None)  # nobody waits while it was to try a node
        return await self._wait(live, entry, patience, tell, reply)

    async def _wait(
        self, live: Live, entry: Entry, patience: float, tell: Callable[[Headers], None], reply: Reply
    ) -> Placed:
        caller = live.caller
        waiter = Waiter(
            id=live.lease_id,
            model=live.model,
            region=self._placement.bound(live.model, caller.region),
            flow=flow_of(caller.tenant_id, caller.priority),
            weight=SHARES[caller.priority] * caller.weight,
            intent=live.intent,
            ask=entry.ask,
            patience=patience,
            tell=tell,
        )
        with reply.kept_open(*self._comments) if live.streamed else nullcontext():
            node = await self._queue.wait(waiter)
        live.leased = True
        return Placed(node, leased=True)

    async def _exchange(self, live: Live, exchange: Exchange, leg: Leg, reply: Reply) -> None:
        live.reached_engine = True
        status = await exchange.head()
        if status != 200:
            raise Elsewhere(errors.of_response(status, await exchange.rest()))
        if leg.stream is not None:
            await self._stream(live, exchange, leg.stream(), reply)
            return
        body = await exchange.rest()
        try:
            live.usage = TABLE[live.endpoint].usage(body)
        except msgspec.MsgspecError as error:
            raise Elsewhere(UpstreamError("the engine's answer is not JSON")) from error
        live.outcome = "completed"
        reply.whole(body, exchange.connection.content_type)

    async def _stream(self, live: Live, exchange: Exchange, stream: ReplyStream, reply: Reply) -> None:
        """Until the first part is sent another node may be tried; after it, what cannot go on is told in the stream."""
        failure: ApiError | None = None
        goes_on = isinstance(stream, Kept)
        try:
            await exchange.relay(Relay(live, stream, exchange, reply))
            failure = errors.of_end(stream)
        except Broken as error:
            failure = UpstreamTimeout(str(error)) if isinstance(error, Stalled) else UpstreamError(str(error))
            goes_on = goes_on and not isinstance(error, Overdue)
        if failure is None:
            live.outcome = "completed"
            live.stream = stream
        elif reply.started:
            if failure.status >= 500 and goes_on and isinstance(stream, Kept) and stream.resumable:
                raise Cut(failure, stream)
            live.outcome = "refused" if failure.status < 500 else "upstream_lost"
            reply.part(stream.told(failure))
        elif failure.status < 500:
            raise Refused(failure)
        else:
            live.stream = None  # nothing of it has reached the client
            raise Elsewhere(failure)
        reply.end()


def _wanted(caller: Caller, entry: Entry) -> Wanted:
    prepared = entry.prepared
    return Wanted(
        tokens=entry.ask.tokens,
        region=caller.region,
        tenant=str(caller.tenant_id),
        session=prepared.session,
        user=prepared.user,
        prompt=prepared.prompt,
    )
