"""A webhook as the gateway passes it on: the body byte for byte, since that is what is signed."""

import msgspec

STRIPE = "/webhooks/stripe"
"""Path of the call `Delivered` → `Taken`."""


class Delivered(msgspec.Struct, frozen=True):
    payload: bytes
    signature: str | None


class Taken(msgspec.Struct, frozen=True):
    received: bool = True
