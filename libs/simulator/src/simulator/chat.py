"""Chat replies as bytes: the chunks of a stream and the one body."""

import uuid

import msgspec

from simulator import logprobs
from simulator.answer import FINGERPRINT, Answer, ids_json, usage
from simulator.ask import Ask
from simulator.sequence import Delta, Sequence

_PLAIN_END = b'},"logprobs":null,"finish_reason":null,"token_ids":null}]'


def tool_id() -> str:
    return f"chatcmpl-tool-{uuid.uuid4().hex[:16]}"


class ChatFrames:
    """Events of one chat stream, from templates made once."""

    def __init__(self, ask: Ask, answer: Answer) -> None:
        self._ask = ask
        self._answer = answer
        self._open = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            msgspec.json.encode(answer.id),
            answer.created,
            msgspec.json.encode(ask.model),
        )
        self._heads = tuple(b'%b{"index":%d,"delta":{' % (self._open, i) for i in range(ask.n))
        self._contents = tuple(h + b'"content":' for h in self._heads)
        self._plain = ask.logprobs is None and not ask.return_ids and ask.tool is None
        self._called: set[int] = set()

    def _usage(self, produced: int) -> bytes:
        if not self._ask.continuous:
            return b""
        prompt = self._answer.prompt_tokens
        return (
            b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"completion_tokens_details":null}'
            % (prompt, prompt + produced, produced)
        )

    def first(self, index: int) -> bytes:
        """The role chunk, which carries no token."""
        return (
            b'%b"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]%b,"prompt_token_ids":%b,"prompt_text":null}\n\n'
            % (
                self._heads[index],
                self._usage(0),
                ids_json(self._ask.prompts[0], self._ask.return_ids),
            )
        )

    def step(self, sequence: Sequence, delta: Delta, last: bool) -> list[bytes]:
        """Chunks of one step; `last` where the stream ends with it, so that the fingerprint has its place."""
        produced = len(sequence.ids)
        if self._plain and not delta.finish:
            return [self._contents[sequence.index] + delta.json + _PLAIN_END + self._usage(produced) + b"}\n\n"]
        if self._ask.tool is not None:
            return self._tool_step(self._ask.tool.name, sequence, delta, last)
        # A finish without text (EOS, abort) has an empty delta; a held-back character has an empty text.
        content = b'"content":' + delta.json if delta.text or not delta.finish else b""
        return [self._chunk(sequence, delta, content, delta.finish, last)]

    def _chunk(self, sequence: Sequence, delta: Delta, content: bytes, finish: str, last: bool) -> bytes:
        ask = self._ask
        probabilities = b"null"
        if ask.logprobs is not None and delta.ids:
            probabilities = logprobs.chat(delta.ids, len(sequence.ids) - len(delta.ids), ask.logprobs)
        stop = b',"stop_reason":' + msgspec.json.encode(delta.stop_reason) if finish else b""
        end = b',"system_fingerprint":' + FINGERPRINT if last and finish and not ask.include_usage else b""
        return b'%b%b},"logprobs":%b,"finish_reason":%b%b,"token_ids":%b}]%b%b}\n\n' % (
            self._heads[sequence.index],
            content,
            probabilities,
            b'"%b"' % finish.encode() if finish else b"null",
            stop,
            ids_json(delta.ids, ask.return_ids),
            self._usage(len(sequence.ids)),
            end,
        )

    def _tool_step(self, name: str, sequence: Sequence, delta: Delta, last: bool) -> list[bytes]:
        chunks = []
        if sequence.index not in self._called:
            self._called.add(sequence.index)
            call = {"id": tool_id(), "type": "function", "index": 0, "function": {"name": name}}
            content = b'"content":null,"tool_calls":' + msgspec.json.encode([call])
            chunks.append(self._chunk(sequence, delta, content, "", False))
        if delta.text:
            content = b'"content":null,"tool_calls":[{"index":0,"function":{"arguments":%b}}]' % delta.json
            chunks.append(self._chunk(sequence, delta, content, "", False))
        if delta.finish:
            chunks.append(self._chunk(sequence, delta, b"", finish_of(self._ask, delta.finish), last))
        return chunks

    def usage(self, produced: int) -> bytes:
        """The chunk that sums the choices."""
        return b'%b],"usage":%b,"system_fingerprint":%b}\n\n' % (
            self._open,
            usage(self._answer, produced, chat=True, final=True),
            FINGERPRINT,
        )


def finish_of(ask: Ask, finish: str) -> str:
    """A required call finishes as "tool_calls", a named one as "stop", both as "length" where they were cut."""
    return ask.tool.finish if ask.tool and finish == "stop" else finish


def body(ask: Ask, answer: Answer, replies: list[tuple[Sequence, str]]) -> bytes:
    """The whole reply as one JSON object."""
    choices = b",".join(_choice(ask, sequence, text) for sequence, text in replies)
    top = logprobs.prompt(ask.prompts[0], ask.prompt_logprobs) if ask.prompt_logprobs is not None else b"null"
    return (
        b'{"id":%b,"object":"chat.completion","created":%d,"model":%b,"choices":[%b],"service_tier":null,'
        b'"system_fingerprint":%b,"usage":%b,"prompt_logprobs":%b,"prompt_token_ids":%b,"prompt_text":null,'
        b'"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}'
    ) % (
        msgspec.json.encode(answer.id),
        answer.created,
        msgspec.json.encode(ask.model),
        choices,
        FINGERPRINT,
        usage(answer, sum(len(s.ids) for s, _ in replies), chat=True, final=False),
        top,
        ids_json(ask.prompts[0], ask.return_ids),
    )


def _choice(ask: Ask, sequence: Sequence, text: str) -> bytes:
    calls = b""
    if ask.tool is not None:
        function = {"name": ask.tool.name, "arguments": text}
        calls = (
            b'"tool_calls":' + msgspec.json.encode([{"id": tool_id(), "type": "function", "function": function}]) + b","
        )
        text = ""
    probabilities = b"null" if ask.logprobs is None else logprobs.chat(tuple(sequence.ids), 0, ask.logprobs)
    return (
        b'{"index":%d,"message":{"role":"assistant","content":%b,"refusal":null,"annotations":null,"audio":null,'
        b'"function_call":null,%b"reasoning":null},"logprobs":%b,"finish_reason":"%b","stop_reason":%b,'
        b'"token_ids":%b,"routed_experts":null}'
    ) % (
        sequence.index,
        msgspec.json.encode(text),
        calls,
        probabilities,
        finish_of(ask, sequence.finish).encode(),
        msgspec.json.encode(sequence.stop_reason),
        ids_json(sequence.ids, ask.return_ids),
    )
