"""Vectors that stand still: the same ids give the same unit vector."""

import base64
import math
import struct
import uuid

import msgspec

from simulator.body import EmbeddingBody
from simulator.config import Config
from simulator.errors import BadRequest, Refusal
from simulator.model import mix, start
from simulator.parse import check_length, rendered

SIZE = 64


class NoPoolingModel(Refusal):
    # An embedding server words it shorter than a generating one, as recorded.
    status = 404
    type = "NotFoundError"


def inputs(body: EmbeddingBody, config: Config) -> list[list[int]]:
    """Ids of each input, or the Refusal that the engine answers."""
    if body.model and body.model not in config.models:
        raise NoPoolingModel(f"The model `{body.model}` does not exist.")
    if body.dimensions is not None:
        raise BadRequest(
            f"Model '{body.model or config.models[0]}' does not support Matryoshka embeddings; "
            f"dimensions must be unset (received dimensions={body.dimensions})."
        )
    given = body.input
    if isinstance(given, str):
        given = [given]
    numbers = [item for item in given if isinstance(item, int)]
    prompts = [rendered(item) for item in ([numbers] if numbers else given)]
    for prompt in prompts:
        check_length(prompt, config.max_model_len)
    return [prompt.ids for prompt in prompts]


def vector(ids: list[int]) -> list[float]:
    """A unit vector of single-precision values."""
    state = start(ids)
    raw = [(mix(state, i) & 0xFFFFFF) / 0x800000 - 1 for i in range(SIZE)]
    norm = math.sqrt(sum(x * x for x in raw)) or 1.0
    return list(struct.unpack(f"<{SIZE}f", struct.pack(f"<{SIZE}f", *(x / norm for x in raw))))


def reply(body: EmbeddingBody, model: str, prompts: list[list[int]], created: int) -> bytes:
    """The whole reply; `encoding_format` base64 packs little-endian floats."""
    data = []
    for index, ids in enumerate(prompts):
        values = vector(ids)
        packed = base64.b64encode(struct.pack(f"<{SIZE}f", *values)).decode()
        shown = packed if body.encoding_format == "base64" else values
        data.append({"index": index, "object": "embedding", "embedding": shown})
    tokens = sum(len(p) for p in prompts)
    return msgspec.json.encode(
        {
            "id": f"embd-{uuid.uuid4().hex[:16]}",
            "object": "list",
            "created": created,
            "model": model,
            "data": data,
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
                "completion_tokens_details": None,
            },
        }
    )
