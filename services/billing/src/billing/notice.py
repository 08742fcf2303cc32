"""What happened, in words, for each kind of channel. Pure.

Texts hold what tenants and engines named, so each kind escapes them in its own way; they never hold a secret.
"""

import html
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

Topic: TypeAlias = Literal[
    "budget.threshold",
    "credit.low",
    "key.created",
    "key.revoked",
    "payment.failed",
    "invoice.ready",
    "launch.failed",
    "node.lost",
    "price.missing",
    "channel.disabled",
    "channel.test",
]
Fact: TypeAlias = str | int
OPERATORS: frozenset[Topic] = frozenset(
    {"payment.failed", "launch.failed", "node.lost", "price.missing", "channel.disabled"}
)
"""What operators are told as well, or alone where it concerns no tenant."""
LONGEST = 500

_WORDS: dict[Topic, tuple[str, str]] = {
    "budget.threshold": (
        "{percent} % of the monthly budget of {whose} is spent",
        "In {month}, {spent_usd} USD of the budget of {limit_usd} USD have been spent.",
    ),
    "credit.low": ("Credits are running low", "{left_usd} USD of prepaid credits are left."),
    "key.created": ("An API key was created", "{actor} created the API key {key_id}."),
    "key.revoked": ("An API key was revoked", "{actor} revoked the API key {key_id}."),
    "payment.failed": ("A payment failed", "The payment of {amount_usd} USD failed: {reason}"),
    "invoice.ready": ("An invoice is ready", "The invoice {number} of {month} over {amount_usd} USD is ready."),
    "launch.failed": (
        "A launch failed",
        "The launch of {model} on {accelerator} in {region} ({cluster}) failed: {reason}",
    ),
    "node.lost": ("A node is lost", "The node {node_id} left the routes: {reason}"),
    "price.missing": ("Usage waits for a price", "Usage of {model} is parked: {reason}"),
    "channel.disabled": (
        "A notification channel was switched off",
        "The {kind} channel {channel_id} was switched off: {reason}",
    ),
    "channel.test": ("A test", "{actor} asked whether notifications reach this channel: they do."),
}


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """`key` names what happened: of two with the same key one is told."""

    topic: Topic
    key: str
    tenant_id: UUID | None
    facts: dict[str, Fact] = {}


class Message(msgspec.Struct, frozen=True):
    title: str
    """One line."""
    text: str


def message(topic: Topic, facts: Mapping[str, Fact]) -> Message:
    """A fact that is missing reads `?`."""
    title, text = _WORDS[topic]
    known = _Known({name: plain(str(fact)) for name, fact in facts.items()})
    return Message(title.format_map(known), text.format_map(known))


def plain(text: str) -> str:
    """In one line of bounded length."""
    return "".join(c if c.isprintable() else " " for c in text[:LONGEST])


def as_html(told: Message) -> str:
    return f"<h3>{html.escape(told.title)}</h3><p>{html.escape(told.text)}</p>"


def as_slack(told: Message) -> bytes:
    """An incoming webhook's body; `&`, `<` and `>` are all that Slack asks to be escaped, so nothing becomes a mention
    or a link."""
    title, text = (
        part.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for part in (told.title, told.text)
    )
    section = {"type": "section", "text": {"type": "mrkdwn", "text": f"*{title}*\n{text}"}}
    return msgspec.json.encode({"text": f"{title}: {text}", "blocks": [section]})


def as_discord(told: Message) -> bytes:
    """An incoming webhook's body, in which nobody is mentioned."""
    title, text = (re.sub(r"([\\*_~`|>\[\]()#@<-])", r"\\\1", part) for part in (told.title, told.text))
    return msgspec.json.encode({"content": f"**{title}**\n{text}", "allowed_mentions": {"parse": []}})


def as_event(topic: Topic, tenant_id: UUID | None, at: datetime, facts: Mapping[str, Fact]) -> bytes:
    """A webhook's body, as Standard Webhooks recommends it."""
    data = {"tenant_id": tenant_id, **facts}
    return msgspec.json.encode({"type": topic, "timestamp": at, "data": data})


def threshold(spent: int, limit: int) -> int | None:
    """The highest of 50, 80 and 100 per cent of a budget that is reached."""
    return next((percent for percent in (100, 80, 50) if limit > 0 and spent * 100 >= limit * percent), None)


class _Known(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"
