"""Writes the JSON Schema of every event to `proto-schemas/`; `--check` fails where the committed files differ."""

import sys
from pathlib import Path

import msgspec

from common import events


def schemas() -> dict[str, bytes]:
    """File name → content, one file an event."""
    found: dict[str, bytes] = {}
    for kind in events.ALL:
        tag = str(kind.__struct_config__.tag)
        body = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(kind)}
        found[f"events/{tag}.json"] = msgspec.json.format(msgspec.json.encode(body, order="sorted"), indent=2) + b"\n"
    return found


def main(arguments: list[str]) -> int:
    check, folder = "--check" in arguments, Path(arguments[-1])
    stale = [
        name
        for name, body in schemas().items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != body
    ]
    if check:
        for name in stale:
            sys.stderr.write(f"{folder / name} is not what the code says: run `make schemas`\n")
        return 1 if stale else 0
    for name, body in schemas().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
