"""Dollars as decimal text, exactly. Pure; no float anywhere."""

from decimal import Decimal

from common.errors import InvalidRequest

PICO_DIGITS = 12
MICRO_DIGITS = 6
HIGHEST_PRICE = 1_000_000
"""Dollars per million tokens; more is a slip of the hand."""


def usd(picodollars: int) -> str:
    """Pico-dollars as dollars: `0.000000012345`, `1.50`, `-0.02`."""
    return _decimal(picodollars, PICO_DIGITS)


def usd_per_million(price: int) -> str:
    """A price in pico-dollars per token as dollars per million tokens."""
    return _decimal(price, MICRO_DIGITS)


def parse_usd_per_million(amount: Decimal, param: str) -> int:
    """Dollars per million tokens as pico-dollars per token; raises InvalidRequest naming `param`."""
    if not amount.is_finite() or not 0 <= amount <= HIGHEST_PRICE:
        raise InvalidRequest(f"must be from 0 to {HIGHEST_PRICE} dollars per million tokens", param=param)
    _, digits, exponent = amount.as_tuple()
    assert isinstance(exponent, int)  # a finite number's
    shift = exponent + MICRO_DIGITS
    # digit by digit, since Decimal's arithmetic rounds to 28 of them
    whole, rest = (digits[:shift], digits[shift:]) if -len(digits) < shift < 0 else (digits, ())
    if shift <= -len(digits):
        whole, rest = (), digits
    if any(rest):
        raise InvalidRequest("has more than 6 decimals: a micro-dollar per million tokens is the smallest unit", param=param)
    number = int("".join(map(str, whole)) or "0")
    return number * 10**shift if shift > 0 and number else number


def _decimal(amount: int, digits: int) -> str:
    whole, fraction = divmod(abs(amount), 10**digits)
    text = f"{fraction:0{digits}d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}{whole}.{text}"
