"""Secrets that we hand out: a kind, 36 random base-62 digits and 6 of CRC-32, so that leak scanners can tell one from
noise. `clk_…` is an API key, `clo_…` an operator's token. Pure."""

import hashlib
import re
import zlib
from typing import Literal, TypeAlias

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SHAPE = re.compile(r"\A[0-9A-Za-z]{42}\Z")
Kind: TypeAlias = Literal["clk", "clo"]


def make(entropy: bytes, kind: Kind = "clk") -> str:
    """A key of 27 random bytes (214 bits are used)."""
    if len(entropy) < 27:
        raise ValueError("a key needs 27 random bytes")
    secret = _base62(int.from_bytes(entropy[:27], "big") % 62**36, 36)
    return f"{kind}_{secret}{_checksum(secret)}"


def plausible(key: str, kind: Kind = "clk") -> bool:
    """Whether it can be one of ours, so that noise never reaches the database."""
    return key[:4] == f"{kind}_" and SHAPE.match(key[4:]) is not None and _checksum(key[4:40]) == key[40:]


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def prefix(key: str) -> str:
    """What may be shown of a key ever after."""
    return key[:12]


def _checksum(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode()), 6)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
