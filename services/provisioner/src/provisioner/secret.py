"""What is made of the provisioner's one secret: a key an engine, and the key that wraps credentials. Pure."""

import base64
import hmac
from hashlib import sha256

SHORTEST = 32


class Secret:
    def __init__(self, text: str) -> None:
        """Raises ValueError when it is too short to be one."""
        if len(text) < SHORTEST:
            raise ValueError(f"shorter than {SHORTEST} characters")
        self._key = text.encode()

    def __repr__(self) -> str:
        return "Secret(…)"

    def engine_key(self, cluster: str) -> str:
        """What the engine of that machine asks for: the same each time, and kept nowhere."""
        return "sk-engine-" + base64.urlsafe_b64encode(self.derived(f"engine {cluster}")).decode().rstrip("=")

    def derived(self, purpose: str) -> bytes:
        return hmac.digest(self._key, purpose.encode(), sha256)
