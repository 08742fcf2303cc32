"""Log probabilities that look right and mean nothing: a pure function of token and place."""

import msgspec

from simulator.model import mix
from simulator.tokenizer import decode
from simulator.vocabulary import SIZE


def _value(token: int, place: int) -> float:
    return -(1 + (mix(token << 32, place) & 0xFFFF)) / 16384


def _others(token: int, place: int, count: int) -> list[int]:
    """`count` ids, the chosen one first."""
    found = [token]
    salt = 0
    while len(found) < count:
        other = 9 + mix(place, token + salt) % (SIZE - 9)
        salt += 1
        if other not in found:
            found.append(other)
    return found


def _entry(token: int, place: int) -> dict[str, object]:
    text = decode([token])
    return {"token": text, "logprob": _value(token, place), "bytes": list(text.encode())}


def chat(ids: tuple[int, ...], place: int, top: int) -> bytes:
    """The `logprobs` object of a chat choice whose first token is number `place`."""
    content = [
        {**_entry(t, place + i), "top_logprobs": [_entry(o, place + i) for o in _others(t, place + i, top)[:top]]}
        for i, t in enumerate(ids)
    ]
    return msgspec.json.encode({"content": content})


def completion(ids: tuple[int, ...], place: int, top: int, offset: int = 0, prompt: tuple[int, ...] = ()) -> bytes:
    """The `logprobs` object of a completion choice; `prompt` (echo) comes first and its first token has none."""
    offsets: list[int] = []
    values: list[float | None] = []
    tokens: list[str] = []
    tops: list[dict[str, float] | None] = []
    for i, token in enumerate((*prompt, *ids)):
        text = decode([token])
        offsets.append(offset)
        offset += len(text)
        tokens.append(text)
        if prompt and i == 0:
            values.append(None)
            tops.append(None)
            continue
        values.append(_value(token, place + i))
        tops.append({decode([o]): _value(o, place + i) for o in _others(token, place + i, max(top, 1))})
    return msgspec.json.encode(
        {"text_offset": offsets, "token_logprobs": values, "tokens": tokens, "top_logprobs": tops}
    )


def prompt(ids: list[int], top: int) -> bytes:
    """The `prompt_logprobs` list: nothing for the first token, then the token itself and the best others by id."""
    found: list[dict[str, dict[str, object]] | None] = [None]
    for place, token in enumerate(ids[1:], 1):
        ranked = _others(token, place, top + 1)
        found.append(
            {
                str(o): {
                    "logprob": _value(o, place),
                    "rank": 1 + mix(o << 32, place) % 500 if o == token else 1,
                    "decoded_token": decode([o]),
                }
                for o in ranked
            }
        )
    return msgspec.json.encode(found)
