"""The `Stripe-Signature` header, as Stripe documents it. Pure."""

import hashlib
import hmac


def header(body: bytes, secret: str, at: int) -> str:
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
