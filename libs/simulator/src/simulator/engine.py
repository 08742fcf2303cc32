"""Who runs, who waits and who is refused, and the beat at which tokens come."""

import asyncio
from collections import deque
from functools import partial

from simulator.config import Config
from simulator.counters import Counters
from simulator.errors import Busy, Dead
from simulator.job import Job
from simulator.prefix import BLOCK, CAPACITY, Prefixes
from simulator.wheel import Wheel

_SLOT_S = 0.005


class Engine:
    """Counts sequences as vLLM does: a request with n choices is n of them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._period = config.token_ms / 1000
        self._wheel = Wheel(self._loop, min(_SLOT_S, self._period or _SLOT_S))
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._arrived: dict[Job, float] = {}
        self._stopping = False
        self.running = 0
        self.waiting = 0
        self.counters = Counters()
        self.prefixes = Prefixes()

    @property
    def kv_usage(self) -> float:
        """Part of the cache that running requests hold, 0 to 1."""
        held = sum(sum(len(p) for p in job.ask.prompts) + job.produced for job in self._running)
        return min(1.0, held / (BLOCK * CAPACITY))

    def refuse_if_full(self, sequences: int) -> None:
        """Busy where `sequences` more would be more in flight than allowed; Dead once the engine stops."""
        if self._stopping:
            raise Dead
        limit = self._config.max_queued
        if limit and self.running + self.waiting + sequences > limit:
            self.counters.rejections += 1
            raise Busy

    def submit(self, job: Job) -> None:
        """Take the job; it runs when there is room, in order of arrival."""
        self._arrived[job] = self._loop.time()
        self._waiting.append(job)
        self.waiting += len(job.sequences)
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            job = self._waiting[0]
            if self.running and self.running + len(job.sequences) > self._config.max_num_seqs:
                return
            self._waiting.popleft()
            self.waiting -= len(job.sequences)
            self._running.add(job)
            self.running += len(job.sequences)
            due = self._loop.time() + self._config.prefill_ms / 1000 + job.plan.delay_s
            job.tick = partial(self._tick, job)
            self._wheel.at(due, job.tick)

    def _tick(self, job: Job, due: float) -> None:
        if job not in self._running:
            return
        if not job.begun:
            self.counters.first_token.observe(self._loop.time() - self._arrived[job])
            self.counters.prompt_tokens += sum(len(p) for p in job.ask.prompts) * job.ask.n
        self.counters.generation_tokens += job.step()
        if job.done.done():
            self._count(job)
            self.release(job)
        elif not job.stalled:
            # From when it was due, not from now, so the rate holds; but no burst after the loop was late.
            following = max(due + self._period, self._loop.time() - self._period)
            self._wheel.at(following, job.tick)

    def _count(self, job: Job) -> None:
        if not job.done.cancelled() and job.done.result() == "completed":
            for sequence in job.sequences:
                self.counters.finished[sequence.finish] += 1

    def release(self, job: Job) -> None:
        """Give the job's place back at once; no matter how often, or whether it still waited."""
        if self._arrived.pop(job, None) is None:
            return
        if job in self._running:
            self._running.remove(job)
            self.running -= len(job.sequences)
        else:
            self._waiting.remove(job)
            self.waiting -= len(job.sequences)
        self._admit()

    def abort_all(self) -> None:
        """End every job as a stopping server does, and take no more."""
        self._stopping = True
        for job in list(self._arrived):
            job.abort()
            # Not `release`: what waits is ended too, so nobody moves up.
        for job in list(self._arrived):
            self.release(job)
