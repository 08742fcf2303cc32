"""One look at an engine over HTTP: `/health`, `/v1/models`, and a token made with the node's own key.

The token is billed to nobody. What engines count of it is told, so that their counters can be explained.
"""

import asyncio

import msgspec
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout

from common.routing import Model, Node
from scheduler.health import Seen, Spent, Wanted
from scheduler.metrics import PROBE_FAILURES, PROBE_TOKENS, PROBES

LARGEST = 1 << 20  # bytes of an answer that is still read
TRIALS: tuple[tuple[str, dict[str, object]], ...] = (
    ("/v1/completions", {"prompt": "Hi", "max_tokens": 1}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}),
    ("/v1/embeddings", {"input": "Hi"}),
    ("/v1/rerank", {"query": "Hi", "documents": ["Hi"]}),
)
"""The first that works proves the engine: a pooling model generates nothing, some engines only chat."""


class _Card(msgspec.Struct, frozen=True):
    id: str
    max_model_len: int | None = None


class _Cards(msgspec.Struct, frozen=True):
    data: tuple[_Card, ...]


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(msgspec.Struct, frozen=True):
    usage: _Usage | None = None


class _Failed(Exception):
    """The reason, as an operator reads it; never holds what the engine sent."""


class Prober:
    def __init__(self, http: ClientSession, timeout: float, token_timeout: float) -> None:
        """Both in seconds."""
        self._http = http
        self._timeout = ClientTimeout(total=timeout)
        self._token_timeout = ClientTimeout(total=token_timeout)

    async def look(self, node: Node, wanted: Wanted) -> Seen:
        """Never raises for what an engine does; the reason says what was wrong."""
        models: tuple[Model, ...] | None = None
        try:
            await self._get(node, "/health")
            if wanted.models:
                models = await self._models(node)
            if not (wanted.token and models):
                return Seen(True, models, reason="" if models is None or models else "it serves no model")
        except _Failed as failure:
            PROBE_FAILURES.inc()
            return Seen(False, models, reason=str(failure))
        spent: list[Spent] = []
        try:
            async with asyncio.timeout(self._token_timeout.total):  # of all trials together
                await self._token(node, models[0].id, spent)
        except TimeoutError:
            PROBE_FAILURES.inc()
            return Seen(True, models, reason="it did not generate a token in time", spent=tuple(spent))
        except _Failed as failure:
            PROBE_FAILURES.inc()
            return Seen(True, models, reason=str(failure), spent=tuple(spent))
        return Seen(True, models, token=True, spent=tuple(spent))

    async def metrics(self, node: Node) -> bytes | None:
        """Of the engine; None: it does not tell them."""
        try:
            return await self._get(node, "/metrics")
        except _Failed:
            return None

    async def _models(self, node: Node) -> tuple[Model, ...]:
        body = await self._get(node, "/v1/models")
        try:
            cards = msgspec.json.decode(body, type=_Cards).data
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise _Failed("/v1/models did not answer with a list of models") from error
        return tuple(Model(card.id, max(card.max_model_len or 0, 0)) for card in cards)

    async def _token(self, node: Node, model: str, spent: list[Spent]) -> None:
        """Adds to `spent` what was asked, answered or not."""
        status = 0
        for path, body in TRIALS:
            PROBES.inc()
            spent.append(Spent(model))
            try:
                async with self._http.post(
                    node.endpoint + path,
                    json={"model": model, **body},
                    headers=_headers(node),
                    timeout=self._token_timeout,
                    allow_redirects=False,
                ) as response:
                    answer = await _read(response)
                    status = response.status
            except (ClientError, TimeoutError, OSError) as error:
                raise _Failed(f"{path} failed: {type(error).__name__}") from error
            spent[-1] = _spent(model, answer) if status == 200 else Spent(model, answered=True)
            if status == 200:
                return
            if status not in (400, 404, 405, 422, 501):
                break
        raise _Failed(f"it did not generate a token: {status}")

    async def _get(self, node: Node, path: str) -> bytes:
        try:
            async with self._http.get(
                node.endpoint + path, headers=_headers(node), timeout=self._timeout, allow_redirects=False
            ) as response:
                body = await _read(response)
                if response.status != 200:
                    raise _Failed(f"{path} answered {response.status}")
                return body
        except (ClientError, TimeoutError, OSError) as error:
            raise _Failed(f"{path} failed: {type(error).__name__}") from error


def _spent(model: str, answer: bytes) -> Spent:
    try:
        usage = msgspec.json.decode(answer, type=_Answer).usage
    except (msgspec.ValidationError, msgspec.DecodeError):
        usage = None
    if usage is None:
        return Spent(model)
    PROBE_TOKENS.labels("input").inc(usage.prompt_tokens)
    PROBE_TOKENS.labels("output").inc(usage.completion_tokens)
    return Spent(model, usage.prompt_tokens, usage.completion_tokens, answered=True)


def _headers(node: Node) -> dict[str, str]:
    return {"authorization": f"Bearer {node.api_key}"} if node.api_key else {}


async def _read(response: ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > LARGEST:
            raise _Failed("its answer is too large")
    return bytes(body)
