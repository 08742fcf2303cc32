"""What one simulated engine is asked to be: its models, its speed, its limits."""

import msgspec


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Times are milliseconds where the name ends in `_ms`; a limit of 0 means none."""

    host: str = "127.0.0.1"
    port: int = 0
    models: tuple[str, ...] = ("demo-8b",)
    token_ms: float = 10.0
    prefill_ms: float = 20.0
    max_model_len: int = 8192
    max_num_seqs: int = 256
    # As in vLLM, sequences that run count too: with 4 in flight and a limit of 4, the fifth is refused.
    max_queued: int = 0
    api_key: str = ""
    ground_truth: str = ""
    seed: int = 0
    sse_keepalive_s: float = 0.0
    embed: bool = False
    # Serve pooling beside generation, which no vLLM does, so that one model has every endpoint.
    everything: bool = False
    # 0: a reply ends only at its limit, as with the tiny model; n: it ends by itself after n tokens on average.
    mean_tokens: int = 0
