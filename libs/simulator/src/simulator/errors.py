"""Refusals, in the engine's words.

Refusal            status, message, type, param
├── BadRequest     400: the engine understood and will not
├── Invalid        400: the body is not what the endpoint takes (type "Bad Request", `param` is the place)
├── NoModel        404
├── Busy           503: too many in flight
└── Dead           500: the engine process is gone
"""

import msgspec


class Refusal(Exception):
    status = 400
    type = "BadRequestError"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def body(self) -> bytes:
        """The JSON object that carries this refusal, as a body or as an event of a stream."""
        return msgspec.json.encode(
            {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.status}}
        )

    def anthropic_body(self) -> bytes:
        """The same in the shape of `/v1/messages`."""
        return msgspec.json.encode({"type": "error", "error": {"type": self.type, "message": self.message}})


class BadRequest(Refusal):
    @classmethod
    def of(cls, message: str, param: str, value: object = None) -> "BadRequest":
        """A refusal that names the parameter in its text too."""
        shown = "" if value is None else f", value={value}"
        return cls(f"{message} (parameter={param}{shown})", param)


class Invalid(Refusal):
    type = "Bad Request"

    def anthropic_body(self) -> bytes:
        """A body that is not what the endpoint takes is refused before the endpoint's own code, in OpenAI's shape."""
        return self.body()

    @classmethod
    def at(cls, kind: str, loc: str, msg: str, given: str, ctx: str = "") -> "Invalid":
        """One pydantic finding, printed as vLLM prints it."""
        detail = f"{{'type': '{kind}', 'loc': '{loc}', 'msg': '{msg}', 'input': '{given}'{ctx}}}"
        return cls(f"1 validation error:\n  {detail}", loc)


class NoModel(Refusal):
    status = 404
    type = "NotFoundError"

    def __init__(self, model: str, models: tuple[str, ...]) -> None:
        super().__init__(f"The model `{model}` does not exist. Valid aliases: {', '.join(models)}.", "model")


class Busy(Refusal):
    status = 503
    type = "Service Unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The engine is currently busy and cannot accept new requests. "
            "Please try again later or on a different instance."
        )


class Dead(Refusal):
    status = 500
    type = "InternalServerError"

    def __init__(self) -> None:
        super().__init__("EngineCore encountered an issue. See stack trace (above) for the root cause.")
