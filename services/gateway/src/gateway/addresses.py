"""The client's address: the socket's peer, or what proxies that we trust say of it. Pure."""

import ipaddress
from collections.abc import Sequence
from typing import TypeAlias

from common.errors import SettingsError

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
UNKNOWN = "unknown"


def networks(text: str) -> tuple[Network, ...]:
    """CIDR ranges, comma separated. Raises SettingsError."""
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise SettingsError("GATEWAY_TRUSTED_PROXIES is not a comma-separated list of CIDR ranges") from error


def client(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """`forwarded_for`: the `X-Forwarded-For` headers in their order.

    Each proxy appends the address it was called from. So, from the right, the first that is not a proxy of ours is
    the client; everything left of it is the client's own claim.
    """
    address = _parsed(peer or "")
    if address is None:
        return UNKNOWN
    hops = [hop for header in forwarded_for for hop in header.split(",")]
    while hops and any(address in network for network in trusted):
        hop = _parsed(hops.pop())
        if hop is None:
            break  # a proxy that writes no address has told nothing
        address = hop
    return str(address)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    text = text.strip().strip('"')
    if text.startswith("["):  # [::1]:80
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 1.2.3.4:80
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
