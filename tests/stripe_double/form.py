"""Stripe's form encoding to nested values: `items[0][price]=p` is {"items": [{"price": "p"}]}. Pure."""

from typing import Any
from urllib.parse import parse_qsl

Params = dict[str, Any]  # Any: text, lists and dicts of the same


def parse(text: str) -> Params:
    found: Params = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        first, *rest = name.replace("]", "").split("[")
        place = found
        keys = [first, *rest]
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        if keys[-1] == "":  # `expand[]=…`
            place[""] = [*place.get("", []), value]
        else:
            place[keys[-1]] = value
    return {key: _lists(value) for key, value in found.items()}


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) == {""}:
        return value[""]
    if value and all(key.isdigit() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(inner) for key, inner in value.items()}
