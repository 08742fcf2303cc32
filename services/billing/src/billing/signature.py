"""Standard Webhooks: how a webhook is signed, and when it is tried again. Pure."""

import base64
import hashlib
import hmac
from uuid import UUID

PREFIX = "whsec_"
FACTORS = (1, 6, 60, 360, 1440, 3600, 7200, 10_080, 14_400, 17_280)
"""Of the first pause: with 5 s the last try is after three days."""


def secret(random: bytes) -> str:
    return PREFIX + base64.b64encode(random).decode()


def headers(secret: str, id: UUID, at: int, body: bytes) -> dict[str, str]:
    """`at` is in seconds since 1970. The id is the same at each try."""
    content = b".".join((f"msg_{id}".encode(), str(at).encode(), body))
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {"webhook-id": f"msg_{id}", "webhook-timestamp": str(at), "webhook-signature": f"v1,{digest}"}


def pause(tries: int, first: float, random: float) -> float | None:
    """Seconds until the next try after so many; None: no more. `random` < 1 spreads them by a fifth either way."""
    if tries > len(FACTORS):
        return None
    return first * FACTORS[tries - 1] * (0.8 + 0.4 * random)
