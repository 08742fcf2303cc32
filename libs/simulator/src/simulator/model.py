"""The next token, as a pure function of every id before it.

A running hash of all ids is the model's whole state, so a node that is given prompt and generated ids goes on with
exactly the text that another node began.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from simulator.vocabulary import BYTES, EOS, IDS, WORDS

_MASK: Final = (1 << 64) - 1
_CHARACTERS = ("é", "ü", "ß", "—", "日", "本", "語", "🙂", "🚀")


def _branches() -> dict[bytes, tuple[int, ...]]:
    found: dict[bytes, dict[int, None]] = {}
    for character in _CHARACTERS:
        raw = character.encode()
        for k in range(1, len(raw)):
            found.setdefault(raw[:k], {})[IDS[raw[k : k + 1]]] = None
    return {prefix: tuple(ids) for prefix, ids in found.items()}


# Begun characters and the bytes that may follow, so that what comes out is valid UTF-8, split over tokens.
_FOLLOW: Final = _branches()
_STARTS = tuple(IDS[c.encode()[:1]] for c in _CHARACTERS)
_EMIT: Final = (
    *(IDS[w.encode()] for w in WORDS),
    *(IDS[b] for b in (b",", b",", b".", b".", b".", b"!", b"?", b"\n")),
    *_STARTS,
)


def start(ids: Iterable[int]) -> int:
    """State after `ids`."""
    state = 0
    for token in ids:
        state = (state * 6364136223846793005 + token + 1442695040888963407) & _MASK
    return state


def advance(state: int, token: int) -> int:
    """State after one more id."""
    return (state * 6364136223846793005 + token + 1442695040888963407) & _MASK


def mix(state: int, salt: int) -> int:
    """64 well-mixed bits of state and salt (splitmix64)."""
    x = (state ^ salt) + 0x9E3779B97F4A7C15 & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def salt(model: str, seed: int | None = None, choice: int = 0) -> int:
    """What tells models apart, and samples with a seed (None: greedy) from each other."""
    name = model if seed is None else f"{model}\0{seed}\0{choice}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def unfinished(ids: list[int]) -> bytes:
    """The bytes of a character that `ids` begin and do not end (at most three)."""
    tail = b"".join(BYTES[i] for i in ids[-3:])
    for size in (3, 2, 1):
        if len(tail) >= size and tail[-size:] in _FOLLOW:
            return tail[-size:]
    return b""


def grow(begun: bytes, token: int) -> bytes:
    """`unfinished` after one more id."""
    begun = begun + BYTES[token] if begun else BYTES[token]
    return begun if begun in _FOLLOW else b""


def choose(bits: int, begun: bytes, mean_tokens: int = 0) -> int:
    """The next id; EOS comes once in `mean_tokens` on average (0: never)."""
    if begun:
        follow = _FOLLOW[begun]
        return follow[bits % len(follow)]
    if mean_tokens and (bits >> 32) % mean_tokens == 0:
        return EOS
    return _EMIT[bits % len(_EMIT)]
