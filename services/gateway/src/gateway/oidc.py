"""Signed-in people: their tokens are checked against the published keys of the issuers that we trust."""

import asyncio
import logging
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import msgspec

from common.errors import Forbidden, InvalidApiKey, SettingsError, Unavailable

LEEWAY = 30
"""Seconds by which clocks may differ."""
ASK_AGAIN = 30.0
"""Seconds between two requests to one issuer: a flood of made-up key ids must not become a flood there."""
FRESH = 600.0
"""Seconds after which keys are asked for again, so that withdrawn ones go."""
STALE = 3600.0
"""Seconds for which keys are believed while the issuer is away."""
MAX_BYTES = 1_000_000
ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
"""Key type and curve → the one algorithm that such a key is used with, whatever a token's header says."""
log = logging.getLogger(__name__)


class Person(msgspec.Struct, frozen=True):
    email: str
    """In lower case, verified by the issuer."""
    subject: str
    issuer: str


class _Discovery(msgspec.Struct, frozen=True):
    issuer: str
    jwks_uri: str


class _Jwks(msgspec.Struct, frozen=True):
    keys: tuple[dict[str, Any], ...]  # Any: JSON Web Keys, which PyJWT reads


class _Claims(msgspec.Struct, frozen=True):
    sub: str
    email: str
    email_verified: bool = False


def issuers(text: str) -> tuple[str, ...]:
    """URLs, comma separated. Raises SettingsError: HTTPS, or a server of this machine."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not all(_is_safe(url) for url in found):
        raise SettingsError("OIDC_ISSUERS is not a comma-separated list of https URLs")
    return found


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and local))


class _Issuer:
    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: dict[str | None, tuple[jwt.PyJWK, str]] = {}
        self.read_at: float | None = None
        self.asked_at: float | None = None
        self.lock = asyncio.Lock()


class People:
    def __init__(self, session: aiohttp.ClientSession, issuers: tuple[str, ...], audience: str) -> None:
        self._session = session
        self._audience = audience
        self._issuers = {url: _Issuer(url) for url in issuers}

    async def person(self, token: str) -> Person:
        """Raises InvalidApiKey, Forbidden (address not verified), Unavailable (the issuer's keys cannot be read)."""
        try:
            header = jwt.get_unverified_header(token)
            claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.PyJWTError as error:
            raise _wrong("the token is not a JWT") from error
        issuer = self._issuers.get(claimed) if isinstance(claimed, str) else None
        if issuer is None:
            raise _wrong("the token is not of an issuer that is trusted here")
        key, algorithm = await self._key(issuer, header.get("kid"))
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=issuer.url,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise _wrong("the token has expired", "token_expired") from error
        except jwt.PyJWTError as error:
            raise _wrong("the token is not valid") from error
        try:
            found = msgspec.convert(claims, _Claims)
        except msgspec.ValidationError as error:
            raise _wrong("the token names no e-mail address") from error
        if not found.email_verified:
            raise Forbidden("the e-mail address is not verified", code="email_not_verified")
        return Person(found.email.lower(), found.sub, issuer.url)

    async def _key(self, issuer: _Issuer, kid: object) -> tuple[jwt.PyJWK, str]:
        async with issuer.lock:  # a rush asks once
            now = time.monotonic()
            wanted = kid if isinstance(kid, str) else None
            old = issuer.read_at is None or now - issuer.read_at > FRESH
            if (old or wanted not in issuer.keys) and (issuer.asked_at is None or now - issuer.asked_at >= ASK_AGAIN):
                issuer.asked_at = now
                try:
                    issuer.keys = await self._read(issuer.url)
                    issuer.read_at = now
                except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError) as error:
                    log.warning("the keys of %s cannot be read: %r", issuer.url, error)
            if issuer.read_at is None or now - issuer.read_at > STALE:
                raise Unavailable("the issuer's keys cannot be read", retry_after=int(ASK_AGAIN))
        if wanted not in issuer.keys:
            raise _wrong("the token is signed with a key that its issuer does not publish")
        return issuer.keys[wanted]

    async def _read(self, url: str) -> dict[str | None, tuple[jwt.PyJWK, str]]:
        at = f"{url.rstrip('/')}/.well-known/openid-configuration"
        discovery = msgspec.json.decode(await self._get(at), type=_Discovery)
        if discovery.issuer != url:
            raise msgspec.ValidationError(f"it calls itself {discovery.issuer!r}")
        if not _is_safe(discovery.jwks_uri):
            raise msgspec.ValidationError(f"its keys are at {discovery.jwks_uri!r}")
        found: dict[str | None, tuple[jwt.PyJWK, str]] = {}
        for key in msgspec.json.decode(await self._get(discovery.jwks_uri), type=_Jwks).keys:
            try:
                algorithm = ALGORITHMS.get((key.get("kty", ""), key.get("crv")))
                if algorithm and key.get("use", "sig") == "sig" and key.get("alg", algorithm) == algorithm:
                    found[key.get("kid")] = (jwt.PyJWK(key, algorithm), algorithm)
            except (jwt.PyJWTError, ValueError, TypeError) as error:  # one bad key is not the end of the others
                log.warning("a key of %s is of no use: %r", url, error)
        return found

    async def _get(self, url: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=5)
        async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
            response.raise_for_status()
            if response.status != 200:
                raise aiohttp.ClientError(f"{url} answered {response.status}")
            return await response.content.read(MAX_BYTES)


def _wrong(message: str, code: str = "invalid_token") -> InvalidApiKey:
    return InvalidApiKey(message, code=code)
