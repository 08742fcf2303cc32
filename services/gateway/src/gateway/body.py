"""A tenant's request body, read only as far as needed and made safe for the engine. Pure.

Every other field goes to the engine as the bytes in which it came.
"""

from typing import Literal, TypeAlias

import msgspec

from common.errors import InvalidRequest, invalid
from gateway import known
from gateway.known import Known

Endpoint: TypeAlias = Literal[
    "chat.completions",
    "completions",
    "embeddings",
    "responses",
    "messages",
    "messages.count_tokens",
    "rerank",
    "score",
    "tokenize",
    "detokenize",
]

STEERING = (
    # what would let a tenant steer the engine or look into another tenant's cache (vLLM 0.32)
    "priority",
    "request_id",
    "session_id",
    "kv_transfer_params",
    "ec_transfer_params",
    "use_beam_search",
    "vllm_xargs",
    "stream_interval",
    "cache_salt",
)

SALTED = frozenset({"chat.completions", "completions", "responses", "messages"})
"""Endpoints whose requests may name a `cache_salt`."""
LONGEST = 256
"""Bytes of a session's or a user's name that count."""

KINDS: dict[Endpoint, type[Known]] = {
    "chat.completions": known.Chat,
    "completions": known.Completion,
    "embeddings": known.Embedding,
    "responses": known.Responses,
    "messages": known.Messages,
    "messages.count_tokens": known.CountTokens,
    "rerank": known.Rerank,
    "score": known.Score,
    "tokenize": known.Tokenize,
    "detokenize": known.Detokenize,
}
_DECODERS = {endpoint: msgspec.json.Decoder(kind) for endpoint, kind in KINDS.items()}
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    stream: bool
    show_usage: bool
    """The client asked for the final usage chunk."""
    show_continuous: bool
    """The client asked for usage on every chunk."""
    choices: int
    """Choices that the reply may have: n × prompts."""
    n: int
    max_output: int | None
    """Tokens that all choices together may have; None when the client set no limit."""
    prompt_bytes: int
    """Size of what becomes the prompt, for an estimate."""
    fields: dict[str, msgspec.Raw]
    body: bytes
    """What the engine gets."""
    prompt: msgspec.Raw = msgspec.Raw()
    """The field that the prompt begins with."""
    session: bytes = b""
    """The conversation that it is part of, and its end user, where the client names them."""
    user: bytes = b""


def prepare(raw: bytes, endpoint: Endpoint) -> Prepared:
    """Raises InvalidRequest naming the field."""
    try:
        fields = _FIELDS.decode(raw)
        read = _DECODERS[endpoint].decode(raw)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise invalid(error) from error
    except (RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest("the body is not valid JSON") from error
    session, user = (bytes(fields.get(name, b"")).strip(b'"')[:LONGEST] for name in ("session_id", "user"))
    for field in STEERING:
        fields.pop(field, None)
    read.check(fields)
    read.rewrite(fields)
    choices = read.per_prompt * read.prompts(fields)
    return Prepared(
        model=read.model,
        stream=read.streams,
        show_usage=read.wants_usage,
        show_continuous=read.wants_usage and read.wants_continuous_usage,
        choices=choices,
        n=read.per_prompt,
        max_output=None if read.limit is None else read.limit * choices,
        prompt_bytes=sum([len(memoryview(fields[name])) for name in read.PROMPT if name in fields]),
        fields=fields,
        body=msgspec.json.encode(fields),
        prompt=next((fields[name] for name in read.PROMPT if name in fields), msgspec.Raw()),
        session=session,
        user=user,
    )


def salted(prepared: Prepared, endpoint: Endpoint, tenant: str) -> Prepared:
    """With a prefix cache of the tenant's own on the engine: how fast an answer comes tells nobody what others asked.

    `tenant` is its id, which needs no escape.
    """
    if endpoint not in SALTED:
        return prepared
    salt = f'"{tenant}"'.encode()
    body = b'{"cache_salt":' + salt + b"," + prepared.body[1:]  # it is an object with a model in it
    fields = {**prepared.fields, "cache_salt": msgspec.Raw(salt)}
    return msgspec.structs.replace(prepared, fields=fields, body=body)
