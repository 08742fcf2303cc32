"""Which path is answered by what, as vLLM's server does; `/sim/*` is ours."""

import time
import uuid
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from simulator import body, messages, metrics, reply
from simulator.config import Config
from simulator.engine import Engine
from simulator.errors import BadRequest, NoModel, Refusal
from simulator.faults import Armed, Fault
from simulator.serving import Serving
from simulator.template import render
from simulator.tokenizer import decode, encode, known
from simulator.truth import Truth
from simulator.vocabulary import glyph

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_METRICS = "text/plain; version=1.0.0; charset=utf-8"
_INFERENCE = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/rerank",
    "/v1/score",
)


class Routes:
    """One process's HTTP surface."""

    def __init__(self, config: Config, engine: Engine, serving: Serving, truth: Truth, armed: Armed) -> None:
        self._config = config
        self._engine = engine
        self._serving = serving
        self._truth = truth
        self._armed = armed
        self._started = time.time()
        self._table: dict[str, dict[str, Handler]] = {
            "/v1/models": {"GET": self._models},
            "/health": {"GET": self._empty},
            "/ping": {"GET": self._empty, "POST": self._empty},
            "/version": {"GET": self._version},
            "/load": {"GET": self._load},
            "/metrics": {"GET": self._metrics},
            "/tokenize": {"POST": self._tokenize},
            "/detokenize": {"POST": self._detokenize},
            "/sim/faults": {"GET": self._faults, "POST": self._arm, "DELETE": self._disarm},
            "/sim/requests": {"GET": self._requests},
        }
        # A server runs one kind of model: pooling, or generating.
        if config.embed or config.everything:
            self._table |= {
                "/v1/embeddings": {"POST": serving.embedding},
                "/v1/rerank": {"POST": serving.rerank},
                "/v1/score": {"POST": serving.score},
            }
        if not config.embed:
            self._table |= {
                "/v1/chat/completions": {"POST": serving.chat},
                "/v1/completions": {"POST": serving.completion},
                "/v1/responses": {"POST": serving.response},
                "/v1/messages": {"POST": serving.message},
                "/v1/messages/count_tokens": {"POST": self._count_tokens},
            }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Any request."""
        path = request.path
        if self._config.api_key and path.startswith(_GUARDED) and not self._knows(request):
            return self._serving.refuse(request) if path in _INFERENCE else reply.unauthorized(request)
        methods = self._table.get(path)
        if methods is None:
            if path.startswith("/sim/requests/") and request.method == "GET":
                return self._one(request, path.removeprefix("/sim/requests/"))
            return reply.answer(request, b'{"detail":"Not Found"}', 404)
        handler = methods.get(request.method)
        if handler is None:
            return reply.answer(request, b'{"detail":"Method Not Allowed"}', 405, allow=", ".join(methods))
        try:
            return await handler(request)
        except Refusal as refusal:
            return reply.answer(request, refusal.body(), refusal.status)

    def _knows(self, request: web.BaseRequest) -> bool:
        return request.headers.get("authorization", "") == f"Bearer {self._config.api_key}"

    async def _empty(self, request: web.BaseRequest) -> web.StreamResponse:
        return reply.answer(request, b"", content_type="")

    async def _version(self, request: web.BaseRequest) -> web.StreamResponse:
        return reply.answer(request, b'{"version":"0.32.0"}')

    async def _load(self, request: web.BaseRequest) -> web.StreamResponse:
        return reply.answer(request, b'{"server_load":%d}' % self._serving.load)

    async def _metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        page = metrics.text(self._engine, self._config.models[0], self._started)
        return reply.answer(request, page, content_type=_METRICS)

    async def _models(self, request: web.BaseRequest) -> web.StreamResponse:
        now = int(time.time())
        cards = [_card(model, self._config.max_model_len, now) for model in self._config.models]
        return reply.answer(request, msgspec.json.encode({"object": "list", "data": cards}))

    async def _tokenize(self, request: web.BaseRequest) -> web.StreamResponse:
        given = body.read(await request.read(), request.headers.get("content-type", ""), body.TokenizeBody)
        self._check_model(given.model)
        if given.messages is not None:
            tools = msgspec.json.encode(given.tools) if given.tools else b""
            ids = render(
                given.messages,
                tools,
                generation_prompt=given.add_generation_prompt,
                continue_final=given.continue_final_message,
            ).ids
        else:
            ids = encode(given.prompt or "")
        strings = [glyph(i) for i in ids] if given.return_token_strs else None
        found = {"count": len(ids), "max_model_len": self._config.max_model_len, "tokens": ids, "token_strs": strings}
        return reply.answer(request, msgspec.json.encode(found))

    async def _detokenize(self, request: web.BaseRequest) -> web.StreamResponse:
        given = body.read(await request.read(), request.headers.get("content-type", ""), body.DetokenizeBody)
        self._check_model(given.model)
        if not known(given.tokens):
            raise BadRequest(f"Token id {max(given.tokens)} is out of vocabulary")
        return reply.answer(request, msgspec.json.encode({"prompt": decode(given.tokens)}))

    async def _count_tokens(self, request: web.BaseRequest) -> web.StreamResponse:
        given = body.read(await request.read(), request.headers.get("content-type", ""), messages.CountTokensBody)
        try:
            return reply.answer(request, messages.counted(given.rendered(self._config)))
        except Refusal as refusal:
            return reply.answer(request, refusal.anthropic_body(), refusal.status)

    def _check_model(self, model: str | None) -> None:
        if model and model not in self._config.models:
            raise NoModel(model, self._config.models)

    async def _faults(self, request: web.BaseRequest) -> web.StreamResponse:
        return reply.answer(request, msgspec.json.encode(self._armed.faults))

    async def _arm(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            fault = msgspec.json.decode(await request.read(), type=Fault, strict=False)
        except msgspec.MsgspecError as error:
            raise BadRequest(str(error)) from error
        self._armed.arm(fault)
        return await self._faults(request)

    async def _disarm(self, request: web.BaseRequest) -> web.StreamResponse:
        self._armed.clear()
        return await self._faults(request)

    async def _requests(self, request: web.BaseRequest) -> web.StreamResponse:
        query = request.query
        try:
            wait, since = float(query.get("wait", 0)), int(query.get("since", 0))
        except ValueError as error:
            raise BadRequest(str(error)) from error
        if "request_id" in query:
            found = await self._truth.wait(query["request_id"], wait)
        else:
            found = self._truth.since(since)
        return reply.answer(request, msgspec.json.encode(found))

    def _one(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        found = self._truth.all_of(request_id)
        if not found:
            return reply.answer(request, b'{"detail":"Not Found"}', 404)
        return reply.answer(request, msgspec.json.encode(found[-1]))


def _card(model: str, longest: int, now: int) -> dict[str, object]:
    permission = {
        "id": f"modelperm-{uuid.uuid4().hex[:16]}",
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": model,
        "object": "model",
        "created": now,
        "owned_by": "vllm",
        "root": f"/srv/models/{model}",
        "parent": None,
        "max_model_len": longest,
        "permission": [permission],
    }
