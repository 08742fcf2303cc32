"""`/v1/rerank` and `/v1/score`: the same pair has the same score. Shapes of vLLM 0.32."""

import uuid

import msgspec

from simulator.config import Config
from simulator.errors import BadRequest, NoModel
from simulator.model import mix, start
from simulator.parse import check_length
from simulator.template import Rendered
from simulator.tokenizer import encode


class RerankBody(msgspec.Struct, frozen=True, kw_only=True):
    query: str
    documents: str | list[str]
    model: str | None = None
    top_n: int = 0


class ScoreBody(msgspec.Struct, frozen=True, kw_only=True):
    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    documents: str | list[str] | None = None
    model: str | None = None


def rerank_pairs(body: RerankBody, config: Config) -> list[list[int]]:
    """Ids of the query with each document; BadRequest where one is too long."""
    _check(body.model, config)
    return [_pair(body.query, document, config) for document in _many(body.documents)]


def score_pairs(body: ScoreBody, config: Config) -> list[list[int]]:
    """Ids of each pair: one text against many, or as many against as many."""
    _check(body.model, config)
    first, second = _many(body.queries or body.text_1), _many(body.documents or body.text_2)
    if not first or not second:
        raise BadRequest("At least one text_pair element must be given")
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise BadRequest("Input lengths must be either 1:1, 1:N or N:N")
    return [_pair(one, other, config) for one, other in zip(first, second, strict=True)]


def rerank_reply(body: RerankBody, model: str, pairs: list[list[int]]) -> bytes:
    documents = _many(body.documents)
    results = [
        {"index": i, "document": {"text": documents[i], "multi_modal": None}, "relevance_score": _score(pair)}
        for i, pair in enumerate(pairs)
    ]
    results.sort(key=lambda result: -_score(pairs[int(str(result["index"]))]))
    tokens = sum(map(len, pairs))
    return msgspec.json.encode(
        {
            "id": _id(),
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": results[: body.top_n or None],
        }
    )


def score_reply(model: str, pairs: list[list[int]], created: int) -> bytes:
    tokens = sum(map(len, pairs))
    usage = {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    data = [{"index": i, "object": "score", "score": _score(pair)} for i, pair in enumerate(pairs)]
    return msgspec.json.encode(
        {"id": _id(), "object": "list", "created": created, "model": model, "data": data, "usage": usage}
    )


def _id() -> str:
    return f"score-{uuid.uuid4().hex[:16]}"


def _many(given: str | list[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else given or []


def _pair(one: str, other: str, config: Config) -> list[int]:
    ids = [*encode(one), *encode(other)]
    check_length(Rendered(ids, len(one) + len(other)), config.max_model_len)
    return ids


def _score(pair: list[int]) -> float:
    return (mix(start(pair), 1) & 0xFFFFFF) / 0x1000000


def _check(model: str | None, config: Config) -> None:
    if model and model not in config.models:
        raise NoModel(model, config.models)
