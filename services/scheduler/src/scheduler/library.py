"""The function library `crosslogic` in Redis: the Lua files of `functions/`, joined in the order of their names."""

from importlib.resources import files


def code() -> str:
    found = sorted((files("scheduler") / "functions").iterdir(), key=lambda file: file.name)
    return "\n".join(file.read_text() for file in found if file.name.endswith(".lua"))
