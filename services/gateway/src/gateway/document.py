"""Writes the OpenAPI document to `proto-schemas/`; `--check` fails where the committed file differs."""

import sys
from pathlib import Path
from typing import Any, cast

import msgspec

from gateway import openapi, routes
from gateway.routes import Services

NAME = "openapi/gateway.json"


def text() -> bytes:
    nothing: Any = None  # Any: handlers are looked at here, and never called
    fields = dict.fromkeys(Services.__struct_fields__, nothing)
    app = routes.litestar(Services(**fields | {"max_body_bytes": 1}), cast(routes.Readiness, nothing))
    document = openapi.complete(app.openapi_schema.to_schema())
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2) + b"\n"


def main(arguments: list[str]) -> int:
    file = Path(arguments[-1]) / NAME
    written = text()
    if "--check" in arguments:
        if file.is_file() and file.read_bytes() == written:
            return 0
        sys.stderr.write(f"{file} is not what the code says: run `make schemas`\n")
        return 1
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(written)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
