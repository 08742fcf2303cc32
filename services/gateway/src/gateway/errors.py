"""An engine's refusals and failures, as what the client is told."""

import msgspec

from common.errors import ApiError, InvalidRequest, NoCapacity, RequestTooLarge, UpstreamError
from gateway.sse import EngineError, ReplyStream


class _Body(msgspec.Struct, frozen=True):
    error: EngineError | str | None = None
    detail: msgspec.Raw = msgspec.Raw(b"null")


class Refused(Exception):
    """The engine refused the request for what it is; no other node would answer otherwise."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


class Elsewhere(Exception):
    """This node will not do; another may. `error` is for the client when there is none."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


def of_end(stream: ReplyStream) -> ApiError | None:
    """What is wrong with a stream that has ended; None when nothing is."""
    if stream.error is not None:
        return of_stream(stream.error)
    if stream.aborted or not stream.done:
        return UpstreamError("the engine ended the stream too early")
    return None


def of_stream(error: EngineError) -> ApiError:
    """An error that came inside a stream whose status was 200."""
    if error.is_clients:
        return InvalidRequest(error.message, param=error.param)
    return UpstreamError("the engine failed while answering")


def of_response(status: int, body: bytes) -> ApiError:
    """An error response. A Refused is raised for the client's faults; otherwise what to tell when no node is left."""
    if status in (400, 413, 422):
        error = _engine_error(body)
        if status == 413:
            raise Refused(RequestTooLarge(error.message, param=error.param))
        raise Refused(InvalidRequest(error.message, param=error.param))
    if status in (405, 501) or (status == 404 and body.startswith(b'{"detail"')):
        raise Refused(InvalidRequest("the model does not support this endpoint", param="model"))
    if status in (429, 503):
        return NoCapacity("every node is busy", retry_after=1, code="overloaded")
    return UpstreamError(f"the engine answered {status}")


def _engine_error(body: bytes) -> EngineError:
    try:
        error = msgspec.json.decode(body, type=_Body).error
    except msgspec.MsgspecError:
        error = None
    if isinstance(error, EngineError):
        return error
    return EngineError(message=error or "the engine refused the request")
