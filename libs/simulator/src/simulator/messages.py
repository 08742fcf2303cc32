"""`/v1/messages`: its body, its events and its one object, as vLLM 0.32 writes them."""

import msgspec

from simulator.answer import Answer
from simulator.ask import Ask, Sampling
from simulator.config import Config
from simulator.errors import NoModel, Refusal
from simulator.parse import token_limit
from simulator.sequence import Delta, Sequence
from simulator.template import Message, Part, Rendered, render

_REASONS = {"length": "max_tokens", "stop": "end_turn"}


class CountTokensBody(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    messages: list[Message]
    system: str | list[Part] | None = None

    def rendered(self, config: Config) -> Rendered:
        """The conversation as the model sees it; NoModel."""
        if self.model not in config.models:
            raise NoModel(self.model, config.models)
        system = [] if self.system is None else [Message("system", self.system)]
        return render([*system, *self.messages])


class MessagesBody(CountTokensBody, frozen=True, kw_only=True):
    max_tokens: int
    stop_sequences: list[str] = []
    stream: bool = False
    temperature: float | None = None
    cache_salt: str | None = None


def parse(body: MessagesBody, config: Config) -> Ask:
    """The job, or the Refusal that the engine answers."""
    page = body.rendered(config)
    return Ask(
        chat=True,
        dialect="messages",
        model=body.model,
        prompts=(page.ids,),
        sampling=Sampling(
            limit=token_limit([page], body.max_tokens, "max_completion_tokens", config),
            seed=None if body.temperature == 0 else config.seed,
            stop=tuple(body.stop_sequences),
        ),
        stream=body.stream,
        cache_salt=body.cache_salt or "",
    )


def counted(page: Rendered) -> bytes:
    count = len(page.ids)
    return b'{"input_tokens":%d,"context_management":{"original_input_tokens":%d}}' % (count, count)


def _reason(sequence: Sequence) -> tuple[str | None, str | None]:
    if sequence.finish == "stop" and isinstance(sequence.stop_reason, str):
        return "stop_sequence", sequence.stop_reason
    return _REASONS.get(sequence.finish), None


def _usage(answer: Answer, produced: int) -> dict[str, int]:
    return {
        "input_tokens": answer.prompt_tokens - answer.cached_tokens - answer.created_cache_tokens,
        "output_tokens": produced,
        "cache_creation_input_tokens": answer.created_cache_tokens,
        "cache_read_input_tokens": answer.cached_tokens,
    }


class MessagesFrames:
    """Events of one message."""

    def __init__(self, ask: Ask, answer: Answer) -> None:
        self._ask = ask
        self._answer = answer
        self._open = False
        self._sequence: Sequence | None = None

    def opening(self) -> list[bytes]:
        """Nothing is sent before the first token."""
        return []

    def first(self, index: int) -> bytes:
        usage = {"input_tokens": self._answer.prompt_tokens, "output_tokens": 0}
        message: dict[str, object] = {
            "id": self._answer.id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._ask.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return _event("message_start", message=message)

    def step(self, sequence: Sequence, delta: Delta, last: bool) -> list[bytes]:
        self._sequence = sequence
        events = []
        if delta.text:
            if not self._open:
                self._open = True
                events.append(_event("content_block_start", content_block={"type": "text", "text": ""}, index=0))
            text = {"type": "text_delta", "text": delta.text}
            events.append(_event("content_block_delta", delta=text, index=0))
        return events

    def end(self, produced: int) -> list[bytes]:
        assert self._sequence
        reason, stop = _reason(self._sequence)
        events = [_event("content_block_stop", index=0)] if self._open else []
        delta = {"stop_reason": reason, "stop_sequence": stop}
        events.append(_event("message_delta", delta=delta, usage=_usage(self._answer, produced)))
        return [*events, _event("message_stop")]

    def failed(self, refusal: Refusal) -> list[bytes] | None:
        """The engine makes an `internal_error` of any error, even of the client's, and says no more."""
        message = f"1 validation error for ChatCompletionStreamResponse\nid\n  Field required ({refusal.message})"
        return [_event("error", error={"type": "internal_error", "message": message})]


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))


def whole(ask: Ask, answer: Answer, sequence: Sequence, text: str) -> bytes:
    reason, stop = _reason(sequence)
    message: dict[str, object] = {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "model": ask.model,
        "stop_reason": reason,
        "stop_sequence": stop,
        "usage": _usage(answer, len(sequence.ids)),
    }
    return msgspec.json.encode({name: value for name, value in message.items() if value is not None})
