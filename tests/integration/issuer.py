"""An OIDC issuer: discovery, published keys, and tokens as a dashboard would get them."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

KEYS: dict[str, tuple[Any, Any, str]] = {
    "RS256": (rsa.generate_private_key(65537, 2048), RSAAlgorithm, "RS256"),
    "ES256": (ec.generate_private_key(ec.SECP256R1()), ECAlgorithm, "ES256"),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm, "EdDSA"),
}
"""Key id → private key, how to publish it, algorithm. Any: each kind of key is a class of its own."""


class Issuer:
    def __init__(self) -> None:
        self.url = ""
        self.published = dict(KEYS)
        self.asked = 0
        """How often the keys were read."""

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["Issuer"]:
        issuer = cls()
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", issuer._discovery)
        app.router.add_get("/jwks", issuer._jwks)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield issuer
        finally:
            await runner.cleanup()

    def token(self, email: str, /, *, kid: str = "EdDSA", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Claims that are None are left out."""
        key, _, algorithm = KEYS[kid]
        now = int(time.time())
        said = {
            "iss": self.url,
            "sub": email,
            "aud": "crosslogic",
            "iat": now,
            "exp": now + 300,
            "email": email,
            "email_verified": True,
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, key, algorithm, headers={"kid": kid, **(header or {})})

    async def _discovery(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/jwks"})

    async def _jwks(self, _: web.Request) -> web.Response:
        self.asked += 1
        keys = [
            {**how.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}
            for kid, (key, how, _) in self.published.items()
        ]
        return web.json_response({"keys": keys})
