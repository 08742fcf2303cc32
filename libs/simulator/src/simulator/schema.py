"""The smallest JSON value that fits a JSON schema, as a constrained model would write."""

from typing import Final

import msgspec

from simulator.errors import BadRequest

_SCALARS: Final[dict[str, object]] = {"string": "text", "integer": 1, "number": 0.5, "boolean": True, "null": None}


def example(schema: object) -> object:
    """A value for `schema`; BadRequest where a schema names a type that JSON has not."""
    if not isinstance(schema, dict):
        raise BadRequest("Grammar error: schema must be an object")
    if "const" in schema:
        return schema["const"]
    for key in ("enum", "anyOf", "oneOf"):
        options = schema.get(key)
        if isinstance(options, list) and options:
            return options[0] if key == "enum" else example(options[0])
    kind = schema.get("type", "object")
    if isinstance(kind, list) and kind:
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties")
        return {k: example(v) for k, v in properties.items()} if isinstance(properties, dict) else {}
    if kind == "array":
        return [example(schema.get("items", {"type": "string"}))]
    if isinstance(kind, str) and kind in _SCALARS:
        return _SCALARS[kind]
    raise BadRequest(f"Grammar error: unknown type {msgspec.json.encode(kind).decode()} in schema")


def text(schema: object) -> str:
    """The example as JSON text."""
    return msgspec.json.encode(example(schema)).decode()
