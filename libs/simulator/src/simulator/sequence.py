"""One choice while it grows: tokens in, text out."""

import msgspec

from simulator import model
from simulator.ask import Sampling
from simulator.vocabulary import BYTES, EOS, JSON, SPECIALS, TEXT


class Delta(msgspec.Struct, frozen=True, gc=False):
    """What one step added. `text` is empty while a character or a stop string may be under way."""

    text: str
    json: bytes  # `text` as JSON
    ids: tuple[int, ...]
    finish: str = ""
    stop_reason: str | int | None = None


class Sequence:
    """Not frozen: this is the state that generation changes."""

    __slots__ = (
        "_begun",
        "_counts",
        "_held",
        "_keep",
        "_mean",
        "_pending",
        "_salt",
        "_sampling",
        "_shown",
        "_state",
        "finish",
        "ids",
        "index",
        "stop_reason",
    )

    def __init__(
        self, index: int, prompt: list[int], state: int, salt: int, sampling: Sampling, mean_tokens: int = 0
    ) -> None:
        self.index = index
        self.ids: list[int] = []
        self.finish = ""
        self.stop_reason: str | int | None = None
        self._state = state
        self._salt = salt
        self._sampling = sampling
        self._mean = mean_tokens
        self._begun = model.unfinished(prompt)
        # The detokenizer starts afresh: where a prompt ends inside a character, the first text is garbage, as in vLLM.
        self._held = b""
        self._pending = ""
        self._shown = 0
        self._keep = max((len(s) for s in sampling.stop), default=1) - (0 if sampling.include_stop else 1)
        self._counts: dict[int, int] = {}
        if sampling.repetition_penalty != 1.0:
            self._counts = dict.fromkeys(prompt, 0)

    def step(self) -> Delta:
        """Generate one token."""
        sampling = self._sampling
        token = self._next()
        self.ids.append(token)
        self._state = model.advance(self._state, token)
        early = len(self.ids) < sampling.min_tokens
        if token == EOS and not sampling.ignore_eos and not early:
            return self._end("", token, "stop")
        if token in sampling.stop_ids and not early:
            return self._end(self._decode(token) if sampling.include_stop else "", token, "stop", token)
        full = len(self.ids) >= sampling.limit
        if sampling.stop:
            return self._step_stopping(token, full)
        if not self._held and not full:
            encoded = JSON[token]
            if encoded is not None and token >= len(SPECIALS):
                return Delta(TEXT[token] or "", encoded, (token,))
        text = self._decode(token)
        if full:
            return self._end(text, token, "length")
        return Delta(text, msgspec.json.encode(text), (token,))

    def _next(self) -> int:
        sampling = self._sampling
        if sampling.script:
            at = len(self.ids)
            return sampling.script[at] if at < len(sampling.script) else EOS
        if sampling.eos_first and len(self.ids) >= sampling.min_tokens:
            return EOS
        bits = model.mix(self._state, self._salt)
        if len(self.ids) < sampling.min_tokens or sampling.ignore_eos:
            token = model.choose(bits, self._begun)
        else:
            token = model.choose(bits, self._begun, self._mean)
        if sampling.penalized:
            token = self._penalize(bits, token)
        self._begun = model.grow(self._begun, token)
        return token

    def _penalize(self, bits: int, first: int) -> int:
        """The least penalized of four candidates; counts are of generated tokens, so they do not carry over."""
        if self._begun or first == EOS:
            return first
        sampling = self._sampling
        best, best_cost = first, float("inf")
        for attempt in range(4):
            candidate = first if attempt == 0 else model.choose(model.mix(bits, attempt), b"")
            seen = self._counts.get(candidate)
            cost = attempt * 0.1 + (seen or 0) * sampling.frequency_penalty
            cost += sampling.presence_penalty if seen else 0.0
            cost += sampling.repetition_penalty - 1.0 if seen is not None else 0.0
            if cost < best_cost:
                best, best_cost = candidate, cost
        self._counts[best] = self._counts.get(best, 0) + 1
        return best

    def _decode(self, token: int) -> str:
        if token < len(SPECIALS):
            return ""
        raw = self._held + BYTES[token]
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                self._held = raw[error.start :]
                return raw[: error.start].decode("utf-8", "replace")
            text = raw.decode("utf-8", "replace")
        self._held = b""
        return text

    def _step_stopping(self, token: int, full: bool) -> Delta:
        text = self._decode(token)
        self._pending += text
        found = min(
            ((at, s) for s in self._sampling.stop if (at := self._pending.find(s)) >= 0),
            default=None,
        )
        if found and len(self.ids) >= self._sampling.min_tokens:
            at, stop = found
            end = at + len(stop) if self._sampling.include_stop else at
            return self._end(self._pending[:end], token, "stop", stop)
        if full:
            return self._end(self._pending, token, "length")
        ready = max(0, len(self._pending) - self._keep)
        text, self._pending = self._pending[:ready], self._pending[ready:]
        return Delta(text, msgspec.json.encode(text), (token,))

    def _end(self, text: str, token: int, finish: str, stop_reason: str | int | None = None) -> Delta:
        self.finish = finish
        self.stop_reason = stop_reason
        return Delta(text, msgspec.json.encode(text), (token,), finish, stop_reason)


def join(deltas: list[Delta]) -> Delta:
    """Several steps as one chunk."""
    if len(deltas) == 1:
        return deltas[0]
    text = "".join(d.text for d in deltas)
    ids = tuple(i for d in deltas for i in d.ids)
    return Delta(text, msgspec.json.encode(text), ids, deltas[-1].finish, deltas[-1].stop_reason)
