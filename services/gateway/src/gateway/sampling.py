"""Which denied calls are told one by one, and how many more there were: a flood must not fill the audit log. Pure."""

from collections import Counter

from gateway.throttle import network

EACH = 20
"""Denied calls of one address told in a minute."""
ALL = 600
"""Denied calls told in a minute, of all addresses."""
MOST = 1_000
"""Addresses counted apart; the others are counted together."""
OTHERS = "others"
MINUTE = 60.0


class Sampling:
    def __init__(self, now: float) -> None:
        self._since = now
        self._told: Counter[str] = Counter()
        self._untold: Counter[str] = Counter()

    def tell(self, address: str) -> bool:
        """Whether this call gets an entry of its own."""
        key = network(address)
        if self._told[key] < EACH and self._told.total() < ALL:
            self._told[key] += 1
            return True
        self._untold[key if key in self._untold or len(self._untold) < MOST else OTHERS] += 1
        return False

    def close(self, now: float, *, early: bool = False) -> dict[str, int]:
        """Once a minute: the calls of each address that were not told; empty while the minute lasts."""
        if not early and now - self._since < MINUTE:
            return {}
        untold = dict(self._untold)
        self._since = now
        self._told.clear()
        self._untold.clear()
        return untold

    def restore(self, untold: dict[str, int]) -> None:
        """Count them again: they could not be written."""
        self._untold.update(untold)
