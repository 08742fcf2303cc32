"""No inference path but those of the table: neither in the app beside it, nor in the document."""

from typing import Any

import msgspec
import pytest

from common.errors import Forbidden, InvalidApiKey, InvalidRequest, NoCapacity, Overloaded, UpstreamError
from gateway import document, routes, shape
from gateway.body import KINDS
from gateway.endpoints import BY_PATH, TABLE
from gateway.openapi import KINDS as DOCUMENTED

ENGINE_PATHS = {
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/rerank",
    "/v1/score",
    "/tokenize",
    "/detokenize",
}


# the handlers declare their parameters in Litestar 2's way, of which it warns on the eve of 3
@pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning")
def test_every_post_under_v1_goes_through_the_table() -> None:
    nothing: Any = None
    services = routes.Services(**dict.fromkeys(routes.Services.__struct_fields__, nothing) | {"max_body_bytes": 1})
    app = routes.litestar(services, nothing)
    beside = {route.path for route in app.routes if "POST" in getattr(route, "methods", ()) and "/v1" in route.path}
    assert beside == set()
    posts = {path for path, item in msgspec.json.decode(document.text())["paths"].items() if "post" in item}
    assert {path for path in posts if path.startswith("/v1")} == {path.decode() for path in BY_PATH}


def test_engines_are_asked_for_nothing_else() -> None:
    assert {spec.engine_path for spec in TABLE.values()} == ENGINE_PATHS
    assert set(TABLE) == set(KINDS) == set(DOCUMENTED)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("no", param="max_tokens"), "invalid_request_error"),
        (InvalidApiKey("no"), "authentication_error"),
        (Forbidden("no"), "permission_error"),
        (Overloaded("no", code="rate_limit_exceeded"), "rate_limit_error"),
        (Overloaded("no"), "overloaded_error"),
        (NoCapacity("no"), "overloaded_error"),
        (UpstreamError("no"), "api_error"),
    ],
)
def test_errors_in_anthropics_shape(error: Any, kind: str) -> None:
    told = msgspec.json.decode(shape.anthropic(error))
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert ("max_tokens" in told["error"]["message"]) == (error.param == "max_tokens")
