"""The operator's token: refused at boot when weak, compared by digest in constant time."""

import hashlib
import hmac
import math
from collections import Counter

from common.errors import InvalidApiKey, SettingsError

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

    def check(self, authorization: str | None, x_admin_token: str | None) -> None:
        """Raises InvalidApiKey. Both digests are always compared, so that the time tells nothing."""
        given = x_admin_token or ""
        if not given and authorization is not None and authorization[:7].lower() == "bearer ":
            given = authorization[7:].strip()
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not given or not any(matches):
            raise InvalidApiKey("the admin token is missing or wrong", code="invalid_admin_token")
