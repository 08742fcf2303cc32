"""Pico-dollars as people read them. Pure."""

PICO_PER_USD = 10**12


def usd(pico: int) -> str:
    """Exact dollars with at least two decimals: 10_000 is `0.00000001`, 10**12 is `1.00`."""
    whole, fraction = divmod(abs(pico), PICO_PER_USD)
    decimals = f"{fraction:012d}".rstrip("0").ljust(2, "0")
    return f"{'-' if pico < 0 else ''}{whole}.{decimals}"
