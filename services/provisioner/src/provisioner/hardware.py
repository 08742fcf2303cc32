"""What GPUs and models are like, as far as it decides whether they fit together and what a token costs. Pure.

Memory is GiB, bandwidth GB/s; both are the makers' data sheets. A model that is not known here is not judged.
"""

import re

import msgspec

GIB = 1 << 30


class Gpu(msgspec.Struct, frozen=True):
    memory: float
    bandwidth: float
    bfloat16: bool = True
    """Compute capability 8.0 or later."""


GPUS = {
    "V100": Gpu(16, 900, bfloat16=False),
    "V100-32GB": Gpu(32, 900, bfloat16=False),
    "T4": Gpu(16, 320, bfloat16=False),
    "A10": Gpu(24, 600),
    "A10G": Gpu(24, 600),
    "A40": Gpu(48, 696),
    "A100": Gpu(40, 1555),
    "A100-80GB": Gpu(80, 2039),
    "L4": Gpu(24, 300),
    "L40": Gpu(48, 864),
    "L40S": Gpu(48, 864),
    "RTX3090": Gpu(24, 936),
    "RTX4090": Gpu(24, 1008),
    "RTXA6000": Gpu(48, 768),
    "H100": Gpu(80, 3350),
    "H100-SXM": Gpu(80, 3350),
    "H200": Gpu(141, 4800),
    "GH200": Gpu(96, 4000),
    "B200": Gpu(180, 8000),
}
"""By the names of SkyPilot's catalogues."""


class Model(msgspec.Struct, frozen=True):
    parameters: float
    """Billions."""
    layers: int
    kv_heads: int
    head_size: int

    def kv_bytes(self, bytes_each: int) -> int:
        """Of one token of context."""
        return 2 * self.layers * self.kv_heads * self.head_size * bytes_each


MODELS = {
    "meta-llama/llama-3.1-8b": Model(8.03, 32, 8, 128),
    "meta-llama/llama-3.1-70b": Model(70.6, 80, 8, 128),
    "meta-llama/llama-3.3-70b": Model(70.6, 80, 8, 128),
    "meta-llama/llama-3.2-1b": Model(1.24, 16, 8, 64),
    "meta-llama/llama-3.2-3b": Model(3.21, 28, 8, 128),
    "mistralai/mistral-7b": Model(7.25, 32, 8, 128),
    "qwen/qwen2.5-7b": Model(7.62, 28, 4, 128),
    "qwen/qwen2.5-72b": Model(72.7, 80, 8, 128),
    "qwen/qwen3-8b": Model(8.19, 36, 8, 128),
    "qwen/qwen3-0.6b": Model(0.6, 28, 8, 128),
}
"""By the beginning of the hub's name in lower case; what follows (`-instruct`) changes weights, not shapes."""
SAME_SHAPE = re.compile(r"\A(-(instruct|chat|base|v)[a-z0-9.-]*)?\Z")
QUANTIZED = re.compile(r"awq|gptq|fp8|int4|int8|w4a16|nvfp4|mxfp4|bnb|gguf")


def model(id: str) -> Model | None:
    """None when its shape is not known for certain."""
    name = id.lower()
    for known, shape in MODELS.items():
        rest = name.removeprefix(known)
        if rest != name and SAME_SHAPE.match(rest) and not QUANTIZED.search(rest):
            return shape
    return None


def tokens_per_second(model: Model, gpu: Gpu, count: int, requests: int) -> float:
    """An estimate of what `requests` at once are given together, for comparing machines before any has run.

    Each step reads the weights once and each request's context (1,000 tokens of two bytes a number); half of the
    memory's bandwidth is reached.
    """
    step = (model.parameters * 2e9 + requests * 1000 * model.kv_bytes(2)) / (gpu.bandwidth * 1e9 * count * 0.5)
    return requests / step
