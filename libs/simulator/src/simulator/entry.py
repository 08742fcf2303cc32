"""One request's record while it is being made."""

import time
from collections.abc import Callable

from aiohttp import web

from simulator.ask import Ask
from simulator.errors import Refusal
from simulator.job import Job
from simulator.sink import EventStream, Stream, Whole
from simulator.truth import Record
from simulator.wire import Wire


class Entry:
    """Not frozen: filled in as the request goes on, turned into a Record at its end."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self.started = time.time()
        self.model = ""
        self.stream = False
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.status = 0
        self.ending = ""
        self.wire: Wire | None = None
        self.job: Job | None = None
        self.sink: EventStream | Stream | Whole | None = None
        self.told: Callable[[Refusal], bytes] = Refusal.body

    def take(self, ask: Ask) -> None:
        self.model = ask.model
        self.stream = ask.stream
        self.prompt_tokens = sum(len(p) for p in ask.prompts)

    def cancelled(self) -> None:
        """The client left; it may have left because of how the request ended."""
        job = self.job
        if self.ending:
            return
        self.ending = "client_disconnected"
        if job and job.stalled:
            self.ending = "fault:stall"
        elif job and job.done.done() and not job.done.cancelled():  # cancelling who awaits cancels what is awaited
            ended = job.done.result()
            if ended != "completed" or self._complete(job):
                self.ending = ended

    def _complete(self, job: Job) -> bool:
        return bool(self.wire and self.wire.idle and self.wire.delivered == job.produced)

    def record(self, seq: int) -> Record:
        return Record(
            seq=seq,
            request_id=self.request.headers.get("x-request-id", ""),
            model=self.model,
            endpoint=self.request.path,
            stream=self.stream,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens_produced=self.job.produced if self.job else 0,
            output_tokens_delivered=self.wire.delivered if self.wire else 0,
            per_choice=tuple(len(s.ids) for s in self.job.sequences) if self.job else (),
            ending=self.ending or "refused",
            status=self.status,
            started=self.started,
            ended=time.time(),
            headers={name.lower(): value for name, value in self.request.headers.items()},
        )
