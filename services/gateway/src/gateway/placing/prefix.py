"""The part of a prompt that later requests are likely to share: its first messages, or its first blocks."""

import msgspec

LEAST = 256
"""Bytes; a shorter beginning is hardly worth a cache, so the next message is taken in."""
MOST = 1024
"""Bytes, about 16 blocks of 16 tokens: longer ones may differ, they begin the same."""

_MESSAGES = msgspec.json.Decoder(list[msgspec.Raw])


def beginning(prompt: msgspec.Raw) -> bytes:
    """`prompt` is JSON: text, or a list of messages. A conversation that goes on keeps its beginning."""
    view = memoryview(prompt)
    if bytes(view[:1]) != b"[":
        return bytes(view[:MOST])
    found = b""
    for message in _MESSAGES.decode(prompt):
        found += bytes(memoryview(message)[:MOST])
        if len(found) >= LEAST:
            break
    return found[:MOST]
