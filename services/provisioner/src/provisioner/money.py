"""Micro-dollars and what a machine's hour means for a million tokens. Pure: no floats reach an answer."""

from decimal import ROUND_HALF_EVEN, Decimal

MICRO = Decimal(1_000_000)


def usd(microusd: int | Decimal) -> str:
    """A decimal number of dollars, to the micro-dollar."""
    return f"{(Decimal(microusd) / MICRO).quantize(1 / MICRO, ROUND_HALF_EVEN):f}"


def micro(dollars: Decimal | float) -> int:
    return int((Decimal(str(dollars)) * MICRO).to_integral_value(ROUND_HALF_EVEN))


def per_million(hourly_microusd: int, tokens_per_second: float) -> str:
    """Dollars for a million tokens, to four digits after the point."""
    tokens = Decimal(str(tokens_per_second)) * 3600
    return f"{(Decimal(hourly_microusd) / tokens).quantize(Decimal('0.0001'), ROUND_HALF_EVEN):f}"
