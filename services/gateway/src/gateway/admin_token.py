"""The root token: refused at boot when weak, compared by digest in constant time."""

import hashlib
import hmac
import math
from collections import Counter

from common.errors import SettingsError

WELL_KNOWN = (
    "changeme",
    "change-me",
    "secret",
    "password",
    "admin",
    "token",
    "example",
    "test",
    "default",
    "crosslogic",
)


def check_strength(token: str, name: str) -> None:
    """Raises SettingsError: 32 characters or more, not a repeated or well-known word, at least 3 bits a character."""
    if len(token) < 32:
        raise SettingsError(f"{name} is too short: 32 characters or more")
    counts = Counter(token)
    bits = -sum(n / len(token) * math.log2(n / len(token)) for n in counts.values())
    rest = token.lower()
    for word in WELL_KNOWN:
        rest = rest.replace(word, "")
    if bits < 3 or len(rest) < 20:
        raise SettingsError(f"{name} is too easy to guess: take it from a random generator")


class AdminToken:
    def __init__(self, current: str, previous: str | None) -> None:
        check_strength(current, "ADMIN_API_TOKEN")
        if previous is not None:
            check_strength(previous, "ADMIN_API_TOKEN_PREVIOUS")
        self._digests = [hashlib.sha256(token.encode()).digest() for token in (current, previous) if token]

    def matches(self, given: str) -> bool:
        """Both digests are always compared, so that the time tells nothing."""
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return bool(given) and any(matches)


def given(authorization: str | None, x_admin_token: str | None) -> str:
    """The token of either header; empty when there is none."""
    if x_admin_token:
        return x_admin_token
    if authorization is not None and authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    return ""
