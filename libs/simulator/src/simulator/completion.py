"""Completion replies as bytes: the chunks of a stream and the one body."""

import msgspec

from simulator import logprobs
from simulator.answer import FINGERPRINT, Answer, ids_json, usage
from simulator.ask import Ask
from simulator.sequence import Delta, Sequence


def _prompt(ask: Ask, index: int) -> list[int]:
    return ask.prompts[index // ask.n]


def _echoed(ask: Ask, index: int) -> str:
    return ask.texts[index // ask.n] if ask.echo and ask.texts else ""


class CompletionFrames:
    """Events of one completion stream."""

    def __init__(self, ask: Ask, answer: Answer) -> None:
        self._ask = ask
        self._answer = answer
        self._open = b'data: {"id":%b,"object":"text_completion","created":%d,"model":%b,"choices":[' % (
            msgspec.json.encode(answer.id),
            answer.created,
            msgspec.json.encode(ask.model),
        )
        self._shown: dict[int, int] = {}

    def first(self, index: int) -> bytes:
        """Completions have no role chunk."""
        return b""

    def step(self, sequence: Sequence, delta: Delta, last: bool) -> list[bytes]:
        """The chunk of one step."""
        ask = self._ask
        index = sequence.index
        shown = self._shown.get(index)
        text = "" if ask.echo_only else delta.text
        if shown is None and ask.echo:
            text = _echoed(ask, index) + text
        probabilities = b"null"
        if ask.logprobs is not None and delta.ids:
            place = len(sequence.ids) - len(delta.ids)
            probabilities = logprobs.completion(delta.ids, place, ask.logprobs, shown or 0)
        continuous = b""
        if ask.continuous:
            prompt, produced = len(_prompt(ask, index)), len(sequence.ids)
            continuous = b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % (
                prompt,
                prompt + produced,
                produced,
            )
        end = b',"system_fingerprint":' + FINGERPRINT if last and delta.finish and not ask.include_usage else b""
        self._shown[index] = (shown or 0) + len(text)
        return [
            b'%b{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b,"stop_reason":%b,"prompt_token_ids":%b,"token_ids":%b}]%b%b}\n\n'
            % (
                self._open,
                index,
                delta.json if text is delta.text else msgspec.json.encode(text),
                probabilities,
                b'"%b"' % delta.finish.encode() if delta.finish else b"null",
                msgspec.json.encode(delta.stop_reason),
                ids_json(_prompt(ask, index), ask.return_ids and shown is None),
                ids_json(delta.ids, ask.return_ids),
                continuous,
                end,
            )
        ]

    def usage(self, produced: int) -> bytes:
        """The chunk that sums the choices."""
        return b'%b],"usage":%b,"system_fingerprint":%b}\n\n' % (
            self._open,
            usage(self._answer, produced, chat=False, final=True),
            FINGERPRINT,
        )


def body(ask: Ask, answer: Answer, replies: list[tuple[Sequence, str]]) -> bytes:
    """The whole reply as one JSON object."""
    return (
        b'{"id":%b,"object":"text_completion","created":%d,"model":%b,"choices":[%b],"service_tier":null,'
        b'"system_fingerprint":%b,"usage":%b,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}'
    ) % (
        msgspec.json.encode(answer.id),
        answer.created,
        msgspec.json.encode(ask.model),
        b",".join(_choice(ask, sequence, text) for sequence, text in replies),
        FINGERPRINT,
        usage(answer, sum(len(s.ids) for s, _ in replies), chat=False, final=False),
    )


def _choice(ask: Ask, sequence: Sequence, text: str) -> bytes:
    prompt = _prompt(ask, sequence.index)
    echoed = tuple(prompt) if ask.echo else ()
    probabilities = prompt_probabilities = b"null"
    if ask.logprobs is not None:
        probabilities = logprobs.completion(tuple(sequence.ids), 0, ask.logprobs, 0, echoed)
    if ask.prompt_logprobs is not None or (ask.echo and ask.logprobs is not None):
        prompt_probabilities = logprobs.prompt(prompt, ask.prompt_logprobs or ask.logprobs or 0)
    return (
        b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":"%b","stop_reason":%b,"token_ids":%b,'
        b'"prompt_logprobs":%b,"prompt_token_ids":%b,"routed_experts":null}'
    ) % (
        sequence.index,
        msgspec.json.encode(_echoed(ask, sequence.index) + ("" if ask.echo_only else text)),
        probabilities,
        sequence.finish.encode(),
        msgspec.json.encode(sequence.stop_reason),
        ids_json(sequence.ids, ask.return_ids),
        prompt_probabilities,
        ids_json(prompt, ask.return_ids),
    )
