"""Which addresses a URL that a tenant has named may lead to: public ones, whatever its name resolves to. Pure."""

import ipaddress
from urllib.parse import urlsplit

from common.errors import InvalidRequest

LONGEST = 2000
HOSTS = {
    "slack": ("hooks.slack.com", "hooks.slack-gov.com"),
    "discord": ("discord.com", "discordapp.com"),
}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def public(address: str, *, loopback: bool) -> bool:
    """Not private, loopback, link-local, multicast or reserved, nor an IPv6 wrapping of such. `loopback` allows this
    machine."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return public(str(inner), loopback=loopback)
    return (loopback and ip.is_loopback) or (ip.is_global and not ip.is_multicast)


def literal(host: str) -> bool:
    """Whether it is an address, which nobody resolves."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check(kind: str, url: str, *, loopback: bool) -> None:
    """Raises InvalidRequest naming `target`; what the name resolves to is checked at each connection."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InvalidRequest("target is not a URL", param="target") from None
    if len(url) > LONGEST or not url.isascii() or not url.isprintable() or " " in url or not host:
        raise InvalidRequest("target is not a URL", param="target")
    if parts.scheme != "https" and not (loopback and parts.scheme == "http"):
        raise InvalidRequest("target must begin with https://", param="target")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("target must not hold a user or a password", param="target")
    if literal(host) and not public(host, loopback=loopback):
        raise InvalidRequest("target leads to an address that is not public", param="target")
    if kind in HOSTS and host not in HOSTS[kind] and not loopback:
        raise InvalidRequest(f"target must be at {' or '.join(HOSTS[kind])}", param="target")
