"""Dollars as people write them and the integers that are stored. Pure: no floats, nothing is rounded."""

from decimal import Context, Decimal, Inexact, InvalidOperation

from common.errors import InvalidRequest
from common.money import PICO_PER_USD, usd

__all__ = ["PICO_PER_USD", "amount", "price", "usd"]

MOST_USD_PER_MILLION = 1_000_000
MOST_USD = 10**9

_EXACT = Context(prec=40, traps=[Inexact, InvalidOperation])
_MICRO = Decimal("0.000001")
_PICO = Decimal("0.000000000001")


def price(usd_per_million: Decimal, param: str) -> int:
    """Dollars a million tokens as pico-dollars a token.

    Raises InvalidRequest naming `param` when it is negative, above a million dollars, or finer than a micro-dollar.
    """
    if not usd_per_million.is_finite() or not 0 <= usd_per_million <= MOST_USD_PER_MILLION:
        raise InvalidRequest(f"{param} must be from 0 to {MOST_USD_PER_MILLION}", param=param)
    try:
        exact = usd_per_million.quantize(_MICRO, context=_EXACT)
    except (Inexact, InvalidOperation):
        raise InvalidRequest(f"{param} has more than 6 decimals", param=param) from None
    return int(exact.scaleb(6, context=_EXACT))


def amount(usd: Decimal, param: str, least: int = 0) -> int:
    """Dollars as pico-dollars.

    Raises InvalidRequest naming `param` when it is below `least` pico-dollars, above a billion dollars, or finer than a
    pico-dollar.
    """
    if not usd.is_finite() or not 0 <= usd <= MOST_USD:
        raise InvalidRequest(f"{param} must be from 0 to {MOST_USD}", param=param)
    try:
        pico = int(usd.quantize(_PICO, context=_EXACT).scaleb(12, context=_EXACT))
    except (Inexact, InvalidOperation):
        raise InvalidRequest(f"{param} has more than 12 decimals", param=param) from None
    if pico < least:
        raise InvalidRequest(f"{param} must be more than 0", param=param)
    return pico
