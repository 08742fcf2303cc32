"""One generation as the engine is to run it, whatever endpoint it came by."""

import msgspec


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen and when they end."""

    limit: int
    seed: int | None = None  # None: greedy
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    stop_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    eos_first: bool = False
    min_tokens: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    script: tuple[int, ...] = ()  # ids that a grammar forces, then EOS

    @property
    def penalized(self) -> bool:
        return bool(self.frequency_penalty or self.presence_penalty or self.repetition_penalty != 1.0)


class Tool(msgspec.Struct, frozen=True):
    """A function call that the request forces."""

    name: str
    finish: str  # "stop" when the request names the tool, "tool_calls" when it requires any


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """`prompts` has one entry for chat; choice index = prompt index * n + j."""

    chat: bool
    dialect: str = ""  # "responses" or "messages": how the reply of a chat is written
    model: str
    prompts: tuple[list[int], ...]
    texts: tuple[str, ...] = ()  # of prompts that came as text, for echo
    n: int = 1
    sampling: Sampling
    stream: bool = False
    include_usage: bool = False
    continuous: bool = False
    logprobs: int | None = None  # how many alternatives
    prompt_logprobs: int | None = None
    echo: bool = False
    echo_only: bool = False  # max_tokens 0: a token is generated and counted, only the prompt is shown
    return_ids: bool = False
    tool: Tool | None = None
    error: str = ""  # found after the head of a stream was sent, so it is told in the stream
    cache_salt: str = ""  # requests with another one share no prefix
    request_id: str = ""
