"""What to ask an engine's tokenizer to learn the size of a prompt that it did not tell. Pure."""

from typing import Any

import msgspec

from gateway.body import Endpoint, Prepared

_CHAT = (
    "model",
    "messages",
    "tools",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
)
_COUNT_TOKENS = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")


class Question(msgspec.Struct, frozen=True):
    path: str
    body: bytes


class _Part(msgspec.Struct, frozen=True):
    text: str = ""


class _Item(msgspec.Struct, frozen=True):
    """An item of a response's input; others than messages count as the text that they carry."""

    role: str = "user"
    content: str | list[_Part] | None = None
    output: str | list[_Part] | None = None
    arguments: str = ""

    def message(self) -> dict[str, str]:
        content = self.content or self.output or self.arguments
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


def of_prompt(endpoint: Endpoint, prepared: Prepared) -> tuple[int, list[Question]]:
    """Tokens that are known already (prompts given as ids), and a question for each of the others.

    Raises msgspec.MsgspecError for prompts that can only be estimated.
    """
    match endpoint:
        case "chat.completions":
            return 0, [Question("/tokenize", _only(prepared, _CHAT))]
        case "messages":
            return 0, [Question("/v1/messages/count_tokens", _only(prepared, _COUNT_TOKENS))]
        case "responses":
            return 0, [_of_response(prepared)]
        case "completions" | "embeddings":
            return _of_texts(prepared, "prompt" if endpoint == "completions" else "input")
        case _:
            raise msgspec.ValidationError(f"{endpoint} has no question")


def of_text(model: str, text: bytes) -> Question:
    body = {"model": model, "prompt": text.decode("utf-8", "replace"), "add_special_tokens": False}
    return Question("/tokenize", msgspec.json.encode(body))


def _only(prepared: Prepared, names: tuple[str, ...]) -> bytes:
    return msgspec.json.encode({name: prepared.fields[name] for name in names if name in prepared.fields})


def _of_texts(prepared: Prepared, field: str) -> tuple[int, list[Question]]:
    if field not in prepared.fields:
        return 0, [Question("/tokenize", _only(prepared, _CHAT))]
    given = msgspec.json.decode(prepared.fields[field], type=str | list[str | int | list[int]])
    parts = [given] if isinstance(given, str) else given
    known = sum(1 if isinstance(part, int) else len(part) for part in parts if not isinstance(part, str))
    bodies = [{"model": prepared.model, "prompt": part} for part in parts if isinstance(part, str)]
    return known, [Question("/tokenize", msgspec.json.encode(body)) for body in bodies]


def _of_response(prepared: Prepared) -> Question:
    given = msgspec.json.decode(prepared.fields["input"], type=str | list[_Item])
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else [item.message() for item in given]
    if (instructions := prepared.fields.get("instructions")) is not None and bytes(instructions) != b"null":
        messages.insert(0, {"role": "system", "content": msgspec.json.decode(instructions, type=str)})
    body: dict[str, object] = {"model": prepared.model, "messages": messages}
    if "tools" in prepared.fields:
        given_tools = msgspec.json.decode(prepared.fields["tools"], type=list[dict[str, Any]])  # Any: whatever JSON
        body["tools"] = [
            {"type": "function", "function": tool} for tool in given_tools if tool.get("type") == "function"
        ]
    return Question("/tokenize", msgspec.json.encode(body))
