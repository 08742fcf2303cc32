"""The chat template: a conversation to the token ids that the model sees."""

import msgspec

from simulator.tokenizer import encode
from simulator.vocabulary import BOS, SPECIAL_IDS


class Part(msgspec.Struct, frozen=True):
    type: str = "text"
    text: str = ""


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[Part] | None = None
    tool_calls: list[object] | None = None

    def text(self) -> str:
        """Everything between the role marker and the end marker."""
        content = self.content or ""
        body = content if isinstance(content, str) else "".join(part.text for part in content)
        return body + (msgspec.json.encode(self.tool_calls).decode() if self.tool_calls else "")


class Rendered(msgspec.Struct, frozen=True):
    ids: list[int]
    characters: int  # of the rendered text: the engine refuses by characters before it tokenizes


class _Page:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.characters = 0

    def add(self, text: str) -> None:
        self.characters += len(text)
        special = SPECIAL_IDS.get(text)
        self.ids.extend(encode(text) if special is None else (special,))


def render(
    messages: list[Message], tools: bytes = b"", *, generation_prompt: bool = True, continue_final: bool = False
) -> Rendered:
    """Ids of the conversation; `continue_final` leaves the last message open so that the model goes on with it."""
    page = _Page()
    page.characters += len("<s>")
    page.ids.append(BOS)
    if tools:
        for text in ("<|system|>", f"tools: {tools.decode()}", "<|end|>", "\n"):
            page.add(text)
    for i, message in enumerate(messages):
        page.add(f"<|{message.role}|>")
        page.add(message.text())
        if not (continue_final and i == len(messages) - 1):
            page.add("<|end|>")
            page.add("\n")
    if generation_prompt and not continue_final:
        page.add("<|assistant|>")
    return Rendered(page.ids, page.characters)
