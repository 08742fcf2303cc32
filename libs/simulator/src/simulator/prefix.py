"""The prefix cache: which leading blocks of a prompt an engine has seen."""

from collections import OrderedDict
from itertools import islice
from typing import Final

import msgspec

from simulator.model import advance

BLOCK: Final = 16
CAPACITY: Final = 65536


class Hit(msgspec.Struct, frozen=True):
    state: int  # of the model after the prompt, which the same pass yields
    cached: int
    created: int


class Prefixes:
    """Blocks of 16 ids, least recently used forgotten first."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def take(self, ids: list[int], salt: int) -> Hit:
        """Look `ids` up and remember them. The last token is always computed, so a hit is never the whole prompt."""
        # The running hash at each block's end names the block and all before it.
        state = 0
        names = []
        for at, token in enumerate(ids, 1):
            state = advance(state, token)
            if at % BLOCK == 0:
                names.append(state ^ salt)
        usable = (len(ids) - 1) // BLOCK
        hits = 0
        for name in islice(names, usable):
            if name not in self._blocks:
                break
            hits += 1
        known = sum(name in self._blocks for name in names)
        for name in names:
            self._blocks[name] = None
            self._blocks.move_to_end(name)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return Hit(state, hits * BLOCK, (len(names) - known) * BLOCK)
