"""What goes wrong between Stripe and its caller, by chance that a seed decides."""

import random
from typing import Literal

Fault = Literal["429", "500", "lost", "late", "cut"]
"""`lost`: done, and the answer never comes; `late`: not done, and no answer; `cut`: done, and the connection is cut."""


class Faults:
    def __init__(
        self, seed: int, path: str = "/v1", method: str = "", retry_after: int | None = None, **chances: float
    ) -> None:
        """Of requests whose path begins with `path`. `chances` from 0 to 1 by the name of a fault, with `_` before a
        number: `_429=0.1, lost=0.05`."""
        self._random = random.Random(seed)
        self._path, self._method = path, method
        self._chances = {name.removeprefix("_"): chance for name, chance in chances.items()}
        self.retry_after = retry_after
        self.met: dict[str, int] = dict.fromkeys(self._chances, 0)

    def next(self, method: str, path: str) -> str | None:
        if not path.startswith(self._path) or self._method not in ("", method):
            return None
        at = self._random.random()
        for fault, chance in self._chances.items():
            if at < chance:
                self.met[fault] += 1
                return fault
            at -= chance
        return None
