"""Parameters as the official client types them: the unknown, missing or wrongly typed is refused as Stripe does."""

import functools
import types
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict

OPTIONS = {"api_key", "idempotency_key", "max_network_retries", "stripe_account", "stripe_context", "stripe_version"}
"""Of the client, sent as headers."""


class Refused(Exception):
    """An error in Stripe's shape."""

    def __init__(
        self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None, type: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        error = {"message": message, "type": type or "invalid_request_error", "code": code, "param": param}
        self.body = {"error": {name: value for name, value in error.items() if value is not None}}


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    known = {"StripeContext": object, "Mapping": Mapping}  # which the client imports for type checkers only
    return get_type_hints(kind, localns=known, include_extras=True)


def check(kind: Any, params: Any, path: str = "") -> None:
    """`kind` is one of `stripe.params`."""
    hints = {name: hint for name, hint in _hints(kind).items() if path or name not in OPTIONS}
    if not isinstance(params, dict):
        raise Refused(f"Invalid object: {path}", param=path)
    for name in params:
        if name not in hints:
            where = f"{path}[{name}]" if path else name
            raise Refused(f"Received unknown parameter: {where}", code="parameter_unknown", param=where)
    for name, hint in hints.items():
        where = f"{path}[{name}]" if path else name
        if name in params:
            if not _fits(hint, params[name], where):
                raise Refused(f"Invalid {where}: {params[name]!r}", param=where)
        elif name in kind.__required_keys__:
            raise Refused(f"Missing required param: {where}.", code="parameter_missing", param=where)


def _fits(hint: Any, value: Any, path: str) -> bool:
    origin = get_origin(hint)
    if origin in (NotRequired, Required):
        return _fits(get_args(hint)[0], value, path)
    if origin in (Union, types.UnionType):
        return any(_tried(part, value, path) for part in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(_fits(get_args(hint)[0], part, path) for part in value)
    if is_typeddict(hint):
        check(hint, value, path)
        return True
    if origin is not None:  # Dict[str, str], UntypedStripeObject[str]
        return isinstance(value, dict) and all(isinstance(part, str) for part in value.values())
    return _plain(hint, value)


def _tried(hint: Any, value: Any, path: str) -> bool:
    try:
        return _fits(hint, value, path)
    except Refused:
        return False


def _plain(hint: Any, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    if hint is int:
        return value.lstrip("-").isdigit()
    if hint is float or getattr(hint, "__name__", "") == "Decimal":
        return value.replace(".", "", 1).lstrip("-").isdigit()
    if hint is bool:
        return value in ("true", "false")
    return hint is str
