"""The OpenAPI document: Litestar's own, with the inference endpoints and every status that can be answered. Pure."""

from typing import Any, TypeAlias

import msgspec

from common.deployments import Scaling, Spec
from common.errors import ErrorReply
from gateway import schemas
from gateway.body import Endpoint
from gateway.endpoints import TABLE
from gateway.shape import AnthropicReply

Document: TypeAlias = dict[str, Any]  # Any: OpenAPI's JSON

KINDS: dict[Endpoint, tuple[type[msgspec.Struct], type[msgspec.Struct]]] = {
    "chat.completions": (schemas.ChatCompletionRequest, schemas.ChatCompletion),
    "completions": (schemas.CompletionRequest, schemas.Completion),
    "embeddings": (schemas.EmbeddingRequest, schemas.Embeddings),
    "responses": (schemas.ResponseRequest, schemas.Response),
    "messages": (schemas.MessageRequest, schemas.Message),
    "messages.count_tokens": (schemas.CountTokensRequest, schemas.TokenCount),
    "rerank": (schemas.RerankRequest, schemas.Ranking),
    "score": (schemas.ScoreRequest, schemas.Scores),
    "tokenize": (schemas.TokenizeRequest, schemas.Tokens),
    "detokenize": (schemas.DetokenizeRequest, schemas.Text),
}
BODIES: dict[str, type[msgspec.Struct]] = {
    "/admin/deployments": Spec,
    "/admin/deployments/plan": Spec,
    "/admin/deployments/{deployment_id}/scale": Scaling,
}
"""Of POST. What other services own is passed on as it came; the gateway checks this much of it."""
STREAMED = ("chat.completions", "completions", "responses", "messages")
_REFUSALS = {
    "400": "The body, the query or the path is wrong; `param` names the field",
    "401": "No key, or one that is not valid",
    "403": "Not with this key",
    "404": "There is no such thing",
    "409": "It is not in the state for that",
    "413": "The body is over the limit",
    "429": "A limit is reached, or the nodes are busy; `retry-after` says when to come back",
    "503": "Something that this needs is away; `retry-after` says when to come back",
}
_UPSTREAM = {"502": "The engine failed", "504": "The engine was silent for too long"}
_EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
_PREFIX = "#/components/schemas/"


def complete(document: Document) -> Document:
    """Litestar's document with what it does not know. The argument stays as it is."""
    kinds = [kind for pair in KINDS.values() for kind in pair]
    _, components = msgspec.json.schema_components(
        [*kinds, *BODIES.values(), ErrorReply, AnthropicReply], ref_template=_PREFIX + "{name}"
    )
    found = dict(document.get("components", {}))
    found["schemas"] = {**found.get("schemas", {}), **components}
    found["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key; the admin token on `/admin`"},
        "anthropic": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    paths = {
        path: {method: _told(path, method, operation) for method, operation in item.items()}
        for path, item in document["paths"].items()
    }
    for endpoint, spec in TABLE.items():
        paths[spec.path] = {"post": _inference(endpoint)}
    return {**document, "components": found, "paths": dict(sorted(paths.items()))}


def _told(path: str, method: str, operation: Any) -> Any:
    if (
        not isinstance(operation, dict)
        or "responses" not in operation
        or not path.startswith(("/v1", "/admin", "/account"))
    ):
        return operation
    replies = {status: _forwarded(reply) for status, reply in operation["responses"].items()}
    return {
        **operation,
        **({"requestBody": _body(BODIES[path])} if method == "post" and path in BODIES else {}),
        "responses": {**replies, **_errors("ErrorReply", _REFUSALS)},
        "security": [{"key": []}],
    }


def _body(kind: type[msgspec.Struct]) -> Document:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": _PREFIX + kind.__name__}}}}


def _forwarded(reply: Document) -> Document:
    """Bytes that another service answered are JSON, which Litestar takes for text."""
    if reply.get("content", {}).get("application/json", {}).get("schema") == {"type": "string"}:
        return {**reply, "content": {"application/json": {"schema": {"type": "object"}}}}
    return reply


def _errors(shape: str, statuses: dict[str, str]) -> Document:
    content = {"application/json": {"schema": {"$ref": _PREFIX + shape}}}
    return {status: {"description": text, "content": content} for status, text in statuses.items()}


def _inference(endpoint: Endpoint) -> Document:
    request, reply = KINDS[endpoint]
    content: Document = {"application/json": {"schema": {"$ref": _PREFIX + reply.__name__}}}
    if endpoint in STREAMED:
        content["text/event-stream"] = {"schema": _EVENT}
    shape = "AnthropicReply" if endpoint.startswith("messages") else "ErrorReply"
    billed = "" if TABLE[endpoint].billed else " Not billed."
    return {
        "operationId": endpoint.replace(".", "_"),
        "summary": f"{endpoint}{' (streamed with `stream`)' if endpoint in STREAMED else ''}",
        "description": f"In the shape of vLLM 0.32; fields that are not listed go to the engine.{billed}",
        "tags": ["inference"],
        "security": [{"key": []}, {"anthropic": []}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _PREFIX + request.__name__}}},
        },
        "responses": {
            "200": {"description": "The reply", "content": content},
            **_errors(shape, {**_REFUSALS, **_UPSTREAM}),
        },
    }
