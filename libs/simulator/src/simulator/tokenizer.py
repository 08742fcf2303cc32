"""Text to token ids and back; any text survives the round trip."""

import re
from functools import lru_cache

from simulator.vocabulary import BYTES, IDS, LONGEST, SIZE

# Pieces are short, so that they repeat and the cache below answers even where a prompt is one endless word.
_PIECE = re.compile(r" ?[A-Za-z]{1,16}|[^A-Za-z ]{1,16}| ")


@lru_cache(maxsize=65536)
def _ids_of(piece: str) -> tuple[int, ...]:
    raw = piece.encode("utf-8", "replace")
    found = []
    at = 0
    while at < len(raw):
        for size in range(min(LONGEST, len(raw) - at), 0, -1):
            token = IDS.get(raw[at : at + size])
            if token is not None:
                found.append(token)
                at += size
                break
    return tuple(found)


def encode(text: str) -> list[int]:
    """Ids of `text`; text that looks like a special token stays text."""
    ids: list[int] = []
    for piece in _PIECE.findall(text):
        ids.extend(_ids_of(piece))
    return ids


def decode(ids: list[int] | tuple[int, ...]) -> str:
    """Text of `ids`, special tokens spelled out, broken UTF-8 as U+FFFD."""
    return b"".join(BYTES[i] for i in ids).decode("utf-8", "replace")


def known(ids: list[int]) -> bool:
    """Whether every id is in the vocabulary."""
    return not ids or (min(ids) >= 0 and max(ids) < SIZE)
