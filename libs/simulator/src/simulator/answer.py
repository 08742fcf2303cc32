"""Who a reply is and what it used: the values that every chunk and body of one reply share."""

import msgspec

FINGERPRINT = b'"vllm-0.32.0-586df193"'


class Answer(msgspec.Struct, frozen=True):
    id: str
    created: int  # Unix seconds
    prompt_tokens: int
    cached_tokens: int
    created_cache_tokens: int


def usage(answer: Answer, produced: int, *, chat: bool, final: bool) -> bytes:
    """Usage of a body, or of a stream's last chunk, which omits what is null."""
    if final:
        created = b',"created_cache_tokens":%d' % answer.created_cache_tokens if chat else b""
        rest = b"}"
    else:
        created = b',"created_cache_tokens":%b' % (str(answer.created_cache_tokens).encode() if chat else b"null")
        rest = b',"multimodal_tokens":null},"completion_tokens_details":null'
    return (
        b'{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d%b%b}'
        % (
            answer.prompt_tokens,
            answer.prompt_tokens + produced,
            produced,
            answer.cached_tokens,
            created,
            rest,
        )
    )


def ids_json(ids: list[int] | tuple[int, ...], wanted: bool) -> bytes:
    """Ids as JSON, or null where the request did not ask for them."""
    return msgspec.json.encode(ids) if wanted else b"null"
