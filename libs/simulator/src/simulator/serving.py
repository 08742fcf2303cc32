"""One inference request from its body to its record."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from simulator import body, chat, completion, embedding, faults, messages, model, parse, reply, responses, scoring
from simulator.answer import Answer
from simulator.ask import Ask
from simulator.config import Config
from simulator.engine import Engine
from simulator.entry import Entry
from simulator.errors import BadRequest, Busy, Dead, Refusal
from simulator.job import Job
from simulator.sequence import Sequence
from simulator.sink import EventStream, Stream, Whole
from simulator.truth import Truth
from simulator.wire import Wire


class Serving:
    """`load` is the number of inference requests in flight, as `GET /load` tells."""

    def __init__(self, config: Config, engine: Engine, truth: Truth, armed: faults.Armed) -> None:
        self._config = config
        self._engine = engine
        self._truth = truth
        self._armed = armed
        self.load = 0

    async def chat(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._recorded(request, self._chat)

    async def completion(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._recorded(request, self._completion)

    async def embedding(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._recorded(request, self._embedding)

    async def response(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._recorded(request, self._response)

    async def message(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._recorded(request, self._message)

    async def rerank(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._recorded(request, self._rerank)

    async def score(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._recorded(request, self._score)

    def refuse(self, request: web.BaseRequest) -> web.StreamResponse:
        """401, on the record."""
        entry = Entry(request)
        entry.status = 401
        self._truth.add(entry.record(self._truth.next()))
        return reply.unauthorized(request)

    async def _recorded(
        self, request: web.BaseRequest, serve: Callable[[web.BaseRequest, Entry], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        entry = Entry(request)
        self.load += 1
        try:
            return await serve(request, entry)
        except Refusal as refusal:
            entry.status = refusal.status
            return reply.answer(request, entry.told(refusal), refusal.status)
        except asyncio.CancelledError:
            entry.cancelled()
            raise
        finally:
            # Nothing here awaits, so a cancelled handler settles too.
            self.load -= 1
            if entry.job and entry.sink:
                entry.sink.close()
                self._engine.release(entry.job)
            self._truth.add(entry.record(self._truth.next()))

    async def _chat(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        given = body.read(await request.read(), request.headers.get("content-type", ""), body.ChatBody)
        entry.model, entry.stream = given.model or "", given.stream
        return await self._generate(request, entry, parse.chat(given, self._config))

    async def _completion(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        given = body.read(await request.read(), request.headers.get("content-type", ""), body.CompletionBody)
        entry.model, entry.stream = given.model or "", given.stream
        return await self._generate(request, entry, parse.completion(given, self._config))

    async def _embedding(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        given = body.read(await request.read(), request.headers.get("content-type", ""), body.EmbeddingBody)
        entry.model = given.model or self._config.models[0]
        prompts = embedding.inputs(given, self._config)
        await self._pooled(request, entry, prompts)
        return reply.answer(request, embedding.reply(given, entry.model, prompts, int(time.time())))

    async def _rerank(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        given = body.read(await request.read(), request.headers.get("content-type", ""), scoring.RerankBody)
        entry.model = given.model or self._config.models[0]
        texts = scoring.ranked(given, self._config)
        await self._pooled(request, entry, texts.prompts)
        return reply.answer(request, scoring.rerank_reply(given, entry.model, texts))

    async def _score(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        given = body.read(await request.read(), request.headers.get("content-type", ""), scoring.ScoreBody)
        entry.model = given.model or self._config.models[0]
        texts = scoring.scored(given, self._config)
        await self._pooled(request, entry, texts.prompts)
        return reply.answer(request, scoring.score_reply(entry.model, texts, int(time.time())))

    async def _pooled(self, request: web.BaseRequest, entry: Entry, prompts: list[list[int]]) -> None:
        """What takes a prefill and nothing more."""
        plan = self._plan(request)
        self._refuse_by(plan, entry)
        entry.prompt_tokens = sum(len(p) for p in prompts)
        await asyncio.sleep(self._config.prefill_ms / 1000 + plan.delay_s)
        self._engine.counters.prompt_tokens += entry.prompt_tokens
        if plan.ending == "error":
            raise Dead
        entry.status, entry.ending = 200, "completed"

    async def _response(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        given = body.read(await request.read(), request.headers.get("content-type", ""), responses.ResponsesBody)
        entry.model, entry.stream = given.model or "", given.stream
        return await self._generate(request, entry, responses.parse(given, self._config), given)

    async def _message(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        entry.told = lambda refusal: refusal.anthropic_body()
        given = body.read(await request.read(), request.headers.get("content-type", ""), messages.MessagesBody)
        entry.model, entry.stream = given.model, given.stream
        return await self._generate(request, entry, messages.parse(given, self._config))

    def _plan(self, request: web.BaseRequest) -> faults.Plan:
        header = request.headers.get(faults.HEADER, "")
        try:
            found = faults.parse(header) if header else self._armed.strike()
        except msgspec.ValidationError as error:
            raise BadRequest(f"{faults.HEADER}: {error}") from error
        return faults.plan(found)

    def _refuse_by(self, plan: faults.Plan, entry: Entry) -> None:
        if plan.ending in ("http503", "http500"):
            entry.ending = f"fault:{plan.ending}"
            raise Busy if plan.ending == "http503" else Dead

    async def _generate(
        self, request: web.BaseRequest, entry: Entry, ask: Ask, asked: responses.ResponsesBody | None = None
    ) -> web.StreamResponse:
        plan = self._plan(request)
        self._refuse_by(plan, entry)
        self._engine.refuse_if_full(len(ask.prompts) * ask.n)
        entry.take(ask)
        answer, sequences = self._prepare(request, ask)
        entry.cached_tokens = answer.cached_tokens
        wire = entry.wire = Wire(reply.transport(request), plan.split, plan.coalesce)
        shape = responses.Shape(asked, ask, answer) if asked else None
        sink: EventStream | Stream | Whole
        if ask.stream:
            # Before prefill and even while queued: what goes wrong from here on can only be told in the stream.
            entry.status = 200
            wire.send(reply.stream_head(request))
            sink = self._stream(ask, answer, shape, wire)
        else:
            sink = Whole()
        job = Job(ask, plan, sequences, sink)
        entry.sink, entry.job = sink, job
        self._engine.submit(job)
        ending = await job.done
        if job.stalled:
            # The server stops; what stalled stays unfinished.
            wire.close()
        elif isinstance(sink, Whole):
            self._write(request, entry, sink, answer, shape)
        await wire.drain()
        # Only now, so that a client that leaves before it read all is on record as gone.
        entry.ending = ending
        return reply.Sent(request.keep_alive and ending not in ("fault:stall", "fault:truncate", "fault:reset"))

    def _stream(self, ask: Ask, answer: Answer, shape: responses.Shape | None, wire: Wire) -> EventStream | Stream:
        keepalive = self._config.sse_keepalive_s
        if shape:
            return EventStream(ask, responses.ResponsesFrames(shape), wire, keepalive)
        if ask.dialect == "messages":
            return EventStream(ask, messages.MessagesFrames(ask, answer), wire, keepalive)
        frames = chat.ChatFrames(ask, answer) if ask.chat else completion.CompletionFrames(ask, answer)
        return Stream(ask, frames, wire, keepalive)

    def _prepare(self, request: web.BaseRequest, ask: Ask) -> tuple[Answer, list[Sequence]]:
        salts = [model.salt(ask.model, ask.sampling.seed, choice) for choice in range(ask.n)]
        counters = self._engine.counters
        sequences = []
        cached = created = 0
        cache = model.salt(f"{ask.model}\0{ask.cache_salt}" if ask.cache_salt else ask.model)
        for at, prompt in enumerate(ask.prompts):
            hit = self._engine.prefixes.take(prompt, cache)
            cached += hit.cached
            created += hit.created
            counters.prefix_queries += len(prompt)
            counters.prefix_hits += hit.cached
            for choice, salt in enumerate(salts):
                index = at * ask.n + choice
                sequences.append(Sequence(index, prompt, hit.state, salt, ask.sampling, self._config.mean_tokens))
        name = request.headers.get("x-request-id") or ask.request_id or uuid.uuid4().hex[:16]
        total = sum(len(p) for p in ask.prompts)
        kind = "chatcmpl" if ask.chat else "cmpl"
        if ask.dialect == "responses":
            kind, name = "resp", uuid.uuid4().hex[:16]
        return Answer(
            f"{kind}_{name}" if kind == "resp" else f"{kind}-{name}", int(time.time()), total, cached, created
        ), sequences

    def _write(
        self, request: web.BaseRequest, entry: Entry, sink: Whole, answer: Answer, shape: responses.Shape | None
    ) -> None:
        job, wire = entry.job, entry.wire
        assert job
        assert wire
        if sink.refusal:
            entry.status = sink.refusal.status
            wire.send(reply.whole(request, entry.told(sink.refusal), sink.refusal.status))
            return
        texts = [(s, "".join(sink.texts.get(s.index, ()))) for s in job.sequences]
        if shape:
            made = responses.whole(shape, *texts[0])
        elif job.ask.dialect == "messages":
            made = messages.whole(job.ask, answer, *texts[0])
        else:
            made = chat.body(job.ask, answer, texts) if job.ask.chat else completion.body(job.ask, answer, texts)
        page = reply.whole(request, made)
        if sink.cut_by_reset:
            wire.reset()
        elif sink.cut_by_reset is False:
            wire.send(page[: len(page) - len(made) // 2])
            wire.close()
        else:
            entry.status = 200
            wire.send(page, job.produced)
