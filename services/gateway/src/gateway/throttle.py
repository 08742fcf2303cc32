"""How many wrong credentials one address may try. Pure: the time is an argument.

A bucket of failures an address: each wrong credential takes one, time gives them back. While it is empty every call
is refused before its credential is looked at, a right one too: were the right one let through, refusing the others
would not slow a guesser down. The price: who shares an address with a guesser waits as well. Calls with a right
credential take nothing.
"""

import ipaddress
import math
from collections import OrderedDict

from common.errors import Overloaded


class Throttle:
    def __init__(self, burst: int = 10, seconds: float = 6.0, most: int = 50_000) -> None:
        """`burst` failures at once, then one every `seconds`; of `most` addresses, those that failed last."""
        self._burst = burst
        self._seconds = seconds
        self._most = most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, address: str, now: float) -> None:
        """Raises Overloaded with `retry_after` while the address has failed too often."""
        left = self._left(network(address), now)
        if left < 1:
            wait = math.ceil((1 - left) * self._seconds)
            raise Overloaded(
                "too many wrong credentials from this address", code="too_many_failures", retry_after=max(wait, 1)
            )

    def failed(self, address: str, now: float) -> None:
        key = network(address)
        self._buckets[key] = (self._left(key, now) - 1, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)

    def _left(self, key: str, now: float) -> float:
        left, at = self._buckets.get(key, (float(self._burst), now))
        return min(left + (now - at) / self._seconds, self._burst)


def network(address: str) -> str:
    """An IPv6 customer has 2^64 addresses or more: they count as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed if parsed.version == 4 else parsed.ipv4_mapped)
