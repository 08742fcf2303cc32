"""`/v1/responses`: its body, its events and its one object, as vLLM 0.32 writes them."""

import uuid
from collections.abc import Sequence as Many

import msgspec

from simulator.answer import Answer
from simulator.ask import Ask, Sampling
from simulator.config import Config
from simulator.errors import BadRequest, NoModel, Refusal
from simulator.parse import token_limit
from simulator.sequence import Delta, Sequence
from simulator.template import Message, Part, render


class Item(msgspec.Struct, frozen=True):
    """Of the input; others than messages are rendered as the text that they carry."""

    role: str = "user"
    content: str | list[Part] | None = None


class ResponsesBody(msgspec.Struct, frozen=True, kw_only=True):
    input: str | list[Item]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stream: bool = False
    background: bool = False
    previous_response_id: str | None = None
    ignore_eos: bool = False
    cache_salt: str | None = None


class _NoResponse(Refusal):
    status = 404
    type = "invalid_request_error"


class _NoStore(Refusal):
    type = "invalid_request_error"


def parse(body: ResponsesBody, config: Config) -> Ask:
    """The job, or the Refusal that the engine answers."""
    if body.model and body.model not in config.models:
        raise NoModel(body.model, config.models)
    if body.background:
        raise _NoStore(
            "This vLLM engine does not support `store=True` and therefore does not support the background mode. To "
            "enable these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching "
            "the vLLM server.",
            "background",
        )
    if body.previous_response_id is not None:
        raise _NoResponse(f"Response with id '{body.previous_response_id}' not found.", "response_id")
    items = [Item(content=body.input)] if isinstance(body.input, str) else body.input
    messages = [Message(item.role, item.content) for item in items]
    if body.instructions is not None:
        messages.insert(0, Message("system", body.instructions))
    temperature = 1.0 if body.temperature is None else body.temperature
    if temperature < 0:
        raise BadRequest.of(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    page = render(messages)
    return Ask(
        chat=True,
        dialect="responses",
        model=body.model or config.models[0],
        prompts=(page.ids,),
        sampling=Sampling(
            limit=token_limit([page], body.max_output_tokens, "max_output_tokens", config),
            seed=None if temperature == 0 else config.seed if body.seed is None else body.seed,
            ignore_eos=body.ignore_eos,
        ),
        stream=body.stream,
        cache_salt=body.cache_salt or "",
    )


class Shape:
    """The response object in its states."""

    def __init__(self, body: ResponsesBody, ask: Ask, answer: Answer) -> None:
        self._body = body
        self._ask = ask
        self._answer = answer
        self.item_id = f"msg_{uuid.uuid4().hex[:16]}"

    def item(self, text: str) -> dict[str, object]:
        part: dict[str, object] = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
        return {
            "id": self.item_id,
            "content": [part],
            "role": "assistant",
            "status": "completed",
            "type": "message",
            "phase": None,
        }

    def of(self, status: str, output: Many[object], usage: object, limited: bool = False) -> dict[str, object]:
        body = self._body
        return {
            "id": self._answer.id,
            "created_at": self._answer.created,
            "incomplete_details": {"reason": "max_output_tokens"} if limited else None,
            "instructions": body.instructions,
            "metadata": body.metadata,
            "model": self._ask.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0 if body.temperature is None else float(body.temperature),
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0 if body.top_p is None else float(body.top_p),
            "background": False,
            "max_output_tokens": self._ask.sampling.limit,
            "max_tool_calls": None,
            "previous_response_id": None,
            "prompt": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": status,
            "text": None,
            "top_logprobs": None,
            "truncation": "disabled",
            "usage": usage,
            "user": None,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }

    def ended(self, sequence: Sequence, text: str) -> dict[str, object]:
        limited = sequence.finish == "length"
        usage = self._usage(len(sequence.ids))
        return self.of("incomplete" if limited else "completed", [self.item(text)] if text else [], usage, limited)

    def _usage(self, produced: int) -> object:
        answer = self._answer
        return {
            "input_tokens": answer.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": answer.cached_tokens,
                "cache_write_tokens": answer.created_cache_tokens,
                "input_tokens_per_turn": [],
                "cached_tokens_per_turn": [],
            },
            "output_tokens": produced,
            "output_tokens_details": {
                "reasoning_tokens": 0,
                "tool_output_tokens": 0,
                "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
            "total_tokens": answer.prompt_tokens + produced,
        }


class ResponsesFrames:
    """Events of one response, numbered."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._number = 0
        self._texts: list[str] = []
        self._sequence: Sequence | None = None

    def _event(self, kind: str, **fields: object) -> bytes:
        # fields in alphabetical order but for the response, which comes first, as recorded
        body = msgspec.json.encode({**dict(sorted({**fields, "sequence_number": self._number}.items())), "type": kind})
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)

    def opening(self) -> list[bytes]:
        """Sent with the head, before the prefill."""
        response = self._shape.of("in_progress", [], None)
        return [self._event(f"response.{kind}", response=response) for kind in ("created", "in_progress")]

    def first(self, index: int) -> bytes:
        """No event of its own."""
        return b""

    def step(self, sequence: Sequence, delta: Delta, last: bool) -> list[bytes]:
        self._sequence = sequence
        events: list[bytes] = []
        part: dict[str, object]
        place: dict[str, object] = {"content_index": 0, "item_id": self._shape.item_id, "output_index": 0}
        if delta.text:
            if not self._texts:
                item = {**self._shape.item(""), "content": [], "status": "in_progress"}
                part = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
                events.append(self._event("response.output_item.added", item=item, output_index=0))
                events.append(self._event("response.content_part.added", part=part, **place))
            self._texts.append(delta.text)
            events.append(self._event("response.output_text.delta", delta=delta.text, logprobs=[], **place))
        if delta.finish and self._texts:
            text = "".join(self._texts)
            part = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
            events.append(self._event("response.output_text.done", logprobs=[], text=text, **place))
            events.append(self._event("response.content_part.done", part=part, **place))
            events.append(self._event("response.output_item.done", item=self._shape.item(text), output_index=0))
        return events

    def end(self, produced: int) -> list[bytes]:
        assert self._sequence
        return [self._event("response.completed", response=self._shape.ended(self._sequence, "".join(self._texts)))]

    def failed(self, refusal: Refusal) -> list[bytes] | None:
        """The engine knows no event for it: the connection breaks."""
        return None


def whole(shape: Shape, sequence: Sequence, text: str) -> bytes:
    return msgspec.json.encode(shape.ended(sequence, text))
