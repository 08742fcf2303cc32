"""Slow start: a node that has just come up takes part in a growing share of the decisions.

Being idle it would win all of them at once. A smaller weight would not do: it would lose all while the others idle.
"""

LEAST = 0.2


def share(ready_for: float | None, slow_start: float) -> float:
    """`slow_start` in seconds; 0 is none."""
    if ready_for is None or ready_for >= slow_start:
        return 1.0
    return max(LEAST, ready_for / slow_start)
