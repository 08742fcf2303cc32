"""JSON bodies of the OpenAI endpoints, refused in pydantic's words where their types are wrong."""

import json
from typing import TypeVar

import msgspec

from simulator.errors import Invalid
from simulator.template import Message


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class Function(msgspec.Struct, frozen=True):
    name: str
    description: str = ""
    parameters: dict[str, object] = {}


class ToolSpec(msgspec.Struct, frozen=True):
    function: Function
    type: str = "function"


class Named(msgspec.Struct, frozen=True):
    name: str = ""


class Choice(msgspec.Struct, frozen=True):
    function: Named


class JsonSchema(msgspec.Struct, frozen=True):
    schema: object = None  # any JSON: whether it is a schema is found out only when the grammar is compiled


class Format(msgspec.Struct, frozen=True):
    type: str = "text"
    json_schema: JsonSchema = JsonSchema(schema={})


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """What chat and completions share. Unknown fields are ignored, as the engine does."""

    model: str | None = None
    n: int = 1
    max_tokens: int | None = None
    temperature: float = 1.0
    seed: int | None = None
    stop: str | list[str] = []
    stop_token_ids: list[int] = []
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    logit_bias: dict[str, float] = {}
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stream: bool = False
    stream_options: StreamOptions | None = None
    echo: bool = False
    return_token_ids: bool = False
    prompt_logprobs: int | None = None
    request_id: str | None = None
    cache_salt: str | None = None
    response_format: Format = Format()


class ChatBody(Common, frozen=True, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    tools: list[ToolSpec] = []
    tool_choice: str | Choice = "auto"
    chat_template: str | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class CompletionBody(Common, frozen=True, kw_only=True):
    prompt: str | list[str | int | list[int]] | None = None
    logprobs: int | None = None


class TokenizeBody(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: list[ToolSpec] = []
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool = False


class DetokenizeBody(msgspec.Struct, frozen=True, kw_only=True):
    tokens: list[int]
    model: str | None = None


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True):
    input: str | list[str | int | list[int]]
    model: str | None = None
    dimensions: int | None = None
    encoding_format: str = "float"


_INTEGERS = {"max_tokens", "max_completion_tokens", "n", "seed", "top_logprobs", "min_tokens", "prompt_logprobs"}
_NUMBERS = {"temperature", "top_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "min_p"}
_FLAGS = {"stream", "ignore_eos", "echo", "return_token_ids", "include_stop_str_in_output"}
_LISTS = {"messages": True, "tools": True, "tokens": True}
_TRUTHS = {"true", "false", "1", "0", "yes", "no", "on", "off", "t", "f", "y", "n"}

B = TypeVar("B")


def read(raw: bytes, content_type: str, kind: type[B]) -> B:
    """The body as `kind`, or Invalid with the text that the engine answers."""
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise Invalid("1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed")
    if not raw:
        raise Invalid.at("missing", "body", "Field required", "None")
    try:
        fields = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        fields = _decode_slowly(raw)
    if not isinstance(fields, dict):
        msg = "Input should be a valid dictionary or object to extract fields from"
        raise Invalid.at("model_attributes_type", "body", msg, _shown(fields))
    fields = {k: v for k, v in fields.items() if v is not None}
    for name, value in fields.items():
        _check(name, value)
    for field in msgspec.structs.fields(kind):  # type: ignore[arg-type]  # every kind is a Struct
        if field.required and field.name not in fields:
            raise Invalid.at("missing", f"body.{field.name}", "Field required", _shown(fields))
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
        place = text.rsplit("`$", 1)[-1].rstrip("`") if "`$" in text else ""
        raise Invalid.at("value_error", f"body{place}", text.split(" - at")[0], _shown(fields)) from None


def _decode_slowly(raw: bytes) -> object:
    # msgspec does not tell where the JSON broke; the engine does, with the standard library's words and position.
    try:
        return json.loads(raw)
    except UnicodeDecodeError:
        raise Invalid("There was an error parsing the body") from None
    except json.JSONDecodeError as error:
        ctx = f", 'ctx': {{'error': '{error.msg}'}}"
        raise Invalid.at("json_invalid", f"body.{error.pos}", "JSON decode error", "<dict of 0 items>", ctx) from None


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return f"<{type(value).__name__} of {len(value)} items>"
    return str(value)


def _check(name: str, value: object) -> None:
    loc = f"body.{name}"
    if name in _INTEGERS:
        message = "Input should be a valid integer"
        if isinstance(value, str) and not value.strip().lstrip("+-").isdigit():
            raise Invalid.at("int_parsing", loc, message + ", unable to parse string as an integer", value)
        if isinstance(value, float) and not value.is_integer():
            raise Invalid.at("int_from_float", loc, message + ", got a number with a fractional part", _shown(value))
        if isinstance(value, dict | list):
            raise Invalid.at("int_type", loc, message, _shown(value))
    elif name in _NUMBERS:
        message = "Input should be a valid number"
        if isinstance(value, dict | list):
            raise Invalid.at("float_type", loc, message, _shown(value))
        if isinstance(value, str):
            try:
                float(value)
            except ValueError:
                message += ", unable to parse string as a number"
                raise Invalid.at("float_parsing", loc, message, value) from None
    elif name in _FLAGS:
        message = "Input should be a valid boolean"
        if isinstance(value, dict | list):
            raise Invalid.at("bool_type", loc, message, _shown(value))
        if isinstance(value, str) and value.lower() not in _TRUTHS:
            raise Invalid.at("bool_parsing", loc, message + ", unable to interpret input", value)
    elif name in _LISTS and not isinstance(value, list):
        raise Invalid.at("list_type", loc, "Input should be a valid list", _shown(value))
