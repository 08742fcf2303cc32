"""An engine's address as its one spelling, so that the same engine is never registered twice. Pure."""

import ipaddress
import re
from urllib.parse import urlsplit

from common.errors import InvalidRequest

HOSTNAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)*\.?\Z")
PORTS = {"http": 80, "https": 443}


def normalised(text: str) -> str:
    """`scheme://host[:port]` in lower case, without the scheme's own port. Raises InvalidRequest for anything more."""
    if not text.isascii() or any(character <= " " or character == "\x7f" for character in text):
        raise _refused("has characters that no address has")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _refused("is not a URL") from error
    if parts.scheme not in PORTS:
        raise _refused("must start with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise _refused("must not hold credentials: use api_key")
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise _refused("must end after the port: no path, query or fragment")
    if port == 0:
        raise _refused("has no usable port")
    host = _host(parts.hostname or "")
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, PORTS[parts.scheme]) else "")


def _host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # all digits and dots: an address in one of the spellings that resolvers guess about
        if not HOSTNAME.match(host) or re.fullmatch(r"[\d.]+|0x[0-9a-f.x]+", host):
            raise _refused("has no valid host") from None
        return host.removesuffix(".")
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise _refused("is not an address that an engine can have")
    return f"[{address.compressed}]" if address.version == 6 else address.compressed


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"the endpoint {why}", param="endpoint")
