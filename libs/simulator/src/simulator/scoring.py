"""`/v1/rerank` and `/v1/score`: the same pair has the same score. Shapes of vLLM 0.32."""

import uuid

import msgspec

from simulator.config import Config
from simulator.embedding import NoPoolingModel
from simulator.errors import BadRequest
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


class Texts(msgspec.Struct, frozen=True):
    """Ids of both sides. Each text is embedded once, and so counted once, whatever it is compared with."""

    first: list[list[int]]
    second: list[list[int]]

    @property
    def prompts(self) -> list[list[int]]:
        return [*self.first, *self.second]

    @property
    def scores(self) -> list[float]:
        first = self.first * len(self.second) if len(self.first) == 1 else self.first
        return [_score([*one, *other]) for one, other in zip(first, self.second, strict=True)]


def ranked(body: RerankBody, config: Config) -> Texts:
    """The query and its documents; BadRequest where one is too long."""
    return _texts(body.model, [body.query], _many(body.documents), config)


def scored(body: ScoreBody, config: Config) -> Texts:
    """One text against many, or as many against as many; BadRequest."""
    return _texts(body.model, _many(body.queries or body.text_1), _many(body.documents or body.text_2), config)


def rerank_reply(body: RerankBody, model: str, texts: Texts) -> bytes:
    documents = _many(body.documents)
    results = [
        (score, {"index": i, "document": {"text": documents[i], "multi_modal": None}, "relevance_score": score})
        for i, score in enumerate(texts.scores)
    ]
    results.sort(key=lambda result: -result[0])
    tokens = sum(map(len, texts.prompts))
    return msgspec.json.encode(
        {
            "id": _id(),
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": [result for _, result in results][: body.top_n or None],
        }
    )


def score_reply(model: str, texts: Texts, created: int) -> bytes:
    tokens = sum(map(len, texts.prompts))
    usage = {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    data = [{"index": i, "object": "score", "score": score} for i, score in enumerate(texts.scores)]
    return msgspec.json.encode(
        {"id": _id(), "object": "list", "created": created, "model": model, "data": data, "usage": usage}
    )


def _id() -> str:
    return f"score-{uuid.uuid4().hex[:16]}"


def _many(given: str | list[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else given or []


def _texts(model: str | None, first: list[str], second: list[str], config: Config) -> Texts:
    if model and model not in config.models:
        raise NoPoolingModel(f"The model `{model}` does not exist.")
    if not first or not second:
        raise BadRequest("At least one text_pair element must be given")
    if len(first) not in (1, len(second)):
        raise BadRequest("Input lengths must be either 1:1, 1:N or N:N")
    return Texts([_ids(text, config) for text in first], [_ids(text, config) for text in second])


def _ids(text: str, config: Config) -> list[int]:
    found = Rendered(encode(text), len(text))
    check_length(found, config.max_model_len)
    return found.ids


def _score(pair: list[int]) -> float:
    return (mix(start(pair), 1) & 0xFFFFFF) / 0x1000000
