"""A body to what the engine is to do, with every check that the real engine makes on the way, in its order."""

from typing import Final

import msgspec

from simulator import schema
from simulator.ask import Ask, Sampling, Tool
from simulator.body import ChatBody, Common, CompletionBody, Function
from simulator.config import Config
from simulator.errors import BadRequest, NoModel
from simulator.template import Rendered, render
from simulator.tokenizer import decode, encode, known
from simulator.vocabulary import EOS, LONGEST

_MOST_CHOICES: Final = 16384
_MOST_LOGPROBS: Final = 20
_COMPLETION_DEFAULT: Final = 16


def chat(body: ChatBody, config: Config) -> Ask:
    """The job of a chat request, or the Refusal that the engine answers."""
    model = _model(body, config)
    if body.chat_template is not None:
        raise BadRequest(
            "Chat template is passed with request, but --trust-request-chat-template is not set. "
            "Refused request with untrusted chat template."
        )
    if not body.messages:
        raise BadRequest("Cannot apply chat template to an empty conversation. Provide at least one message.")
    if any(part.type != "text" for m in body.messages if isinstance(m.content, list) for part in m.content):
        raise BadRequest(f"{model} is not a multimodal model")
    tools = msgspec.json.encode(body.tools) if body.tools else b""
    page = render(
        body.messages,
        tools,
        generation_prompt=body.add_generation_prompt,
        continue_final=body.continue_final_message,
    )
    asked = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    name = "max_completion_tokens" if body.max_completion_tokens is not None else "max_tokens"
    limit = token_limit([page], asked, name, config)
    if body.logprobs and body.top_logprobs > _MOST_LOGPROBS:
        raise _too_many_logprobs(body.top_logprobs)
    tool, function = _forced(body)
    script, error = _script(body, function)
    return _ask(
        body,
        config,
        chat=True,
        model=model,
        prompts=(page.ids,),
        sampling=_sampling(body, limit, script, config),
        logprobs=body.top_logprobs if body.logprobs else None,
        tool=tool,
        error=error,
    )


def completion(body: CompletionBody, config: Config) -> Ask:
    """The job of a completion request, or the Refusal that the engine answers."""
    model = _model(body, config)
    prompts = _prompts(body)
    asked = _COMPLETION_DEFAULT if body.max_tokens is None else body.max_tokens
    echo_only = body.echo and asked == 0
    limit = token_limit(prompts, 1 if echo_only else asked, "max_tokens", config)
    if (body.logprobs or 0) > _MOST_LOGPROBS:
        raise _too_many_logprobs(body.logprobs or 0)
    script, error = _script(body, None)
    # What came as ids has no text to echo, as recorded.
    texts = tuple(decode(p.ids) if p.characters else "" for p in prompts)
    return _ask(
        body,
        config,
        chat=False,
        model=model,
        prompts=tuple(p.ids for p in prompts),
        texts=texts,
        sampling=_sampling(body, limit, script, config),
        logprobs=body.logprobs,
        echo_only=echo_only,
        error=error,
    )


def _ask(
    body: Common,
    config: Config,
    *,
    chat: bool,
    model: str,
    prompts: tuple[list[int], ...],
    sampling: Sampling,
    logprobs: int | None,
    error: str,
    texts: tuple[str, ...] = (),
    tool: Tool | None = None,
    echo_only: bool = False,
) -> Ask:
    options = body.stream_options
    include = bool(options and options.include_usage)
    return Ask(
        chat=chat,
        model=model,
        prompts=prompts,
        texts=texts,
        n=body.n,
        sampling=sampling,
        stream=body.stream,
        include_usage=include,
        continuous=bool(include and options and options.continuous_usage_stats),
        logprobs=logprobs,
        prompt_logprobs=body.prompt_logprobs,
        echo=body.echo,
        echo_only=echo_only,
        return_ids=body.return_token_ids,
        tool=tool,
        error=error,
        cache_salt=body.cache_salt or "",
        request_id=body.request_id or "",
    )


def _model(body: Common, config: Config) -> str:
    if body.stream_options is not None and not body.stream:
        raise BadRequest.of("Stream options can only be defined when `stream=True`.", "stream_options")
    # Without a model the engine takes its own.
    if body.model and body.model not in config.models:
        raise NoModel(body.model, config.models)
    return body.model or config.models[0]


def _prompts(body: CompletionBody) -> list[Rendered]:
    prompt = body.prompt
    if prompt is None or prompt == "" or prompt == []:
        raise BadRequest("Either prompt or prompt_embeds must be provided and non-empty.")
    if isinstance(prompt, str):
        prompt = [prompt]
    ids = [item for item in prompt if isinstance(item, int)]
    if ids:
        if len(ids) < len(prompt):
            raise BadRequest("prompt must be text, ids, or a list of either")
        prompt = [ids]
    return [rendered(item) for item in prompt]


def rendered(item: str | int | list[int]) -> Rendered:
    """A prompt of text or of ids; BadRequest where an id means nothing to the model."""
    if isinstance(item, str):
        return Rendered(encode(item), len(item))
    if isinstance(item, int) or not item:
        raise BadRequest("a prompt must be text or token ids")
    if not known(item):
        raise BadRequest(f"Token id {max(item)} is out of vocabulary")
    return Rendered(item, 0)


def token_limit(prompts: list[Rendered], asked: int | None, name: str, config: Config) -> int:
    """Most tokens to generate; BadRequest where prompt and answer cannot fit."""
    longest = config.max_model_len
    for prompt in prompts:
        check_length(prompt, longest)
    if asked is not None and asked > longest:
        raise BadRequest.of(
            f"{name}={asked} cannot be greater than max_model_len={longest}. Please request fewer output tokens.",
            name,
            asked,
        )
    if asked is not None and asked < 1:
        # The engine's own words know only max_tokens.
        raise BadRequest.of(f"max_tokens must be at least 1, got {asked}.", "max_tokens", asked)
    room = longest - max(len(p.ids) for p in prompts)
    if asked is not None and asked > room:
        raise _too_long(longest, asked, longest - room)
    return room if asked is None else asked


def check_length(prompt: Rendered, longest: int) -> None:
    """BadRequest where a prompt leaves no room for one token."""
    bound = longest * LONGEST
    if prompt.characters > bound:
        raise BadRequest.of(
            f"This model's maximum context length is {longest} tokens. However, your prompt contains "
            f"{prompt.characters} characters (more than {bound} characters, which is the upper bound for "
            f"{longest} input tokens). Please reduce the length of the input prompt.",
            "input_text",
            prompt.characters,
        )
    if len(prompt.ids) >= longest:
        raise _too_long(longest, 1, len(prompt.ids))


def _too_long(longest: int, asked: int, given: int) -> BadRequest:
    return BadRequest.of(
        f"This model's maximum context length is {longest} tokens. However, you requested {asked} output tokens and "
        f"your prompt contains at least {given} input tokens, for a total of at least {asked + given} tokens. "
        "Please reduce the length of the input prompt or the number of requested output tokens.",
        "input_tokens",
        given,
    )


def _too_many_logprobs(asked: int) -> BadRequest:
    return BadRequest.of(
        f"Requested sample logprobs of {asked}, which is greater than max allowed: {_MOST_LOGPROBS}", "logprobs", asked
    )


def _sampling(body: Common, limit: int, script: tuple[int, ...], config: Config) -> Sampling:
    if body.temperature < 0:
        value = float(body.temperature)
        raise BadRequest.of(f"temperature must be non-negative, got {value}.", "temperature", value)
    if body.n < 1:
        raise BadRequest(f"n must be at least 1, got {body.n}.")
    if body.n > _MOST_CHOICES:
        raise BadRequest(
            f"n must be at most {_MOST_CHOICES}, got {body.n}. To increase this limit, set the "
            "VLLM_MAX_N_SEQUENCES environment variable."
        )
    greedy = body.temperature == 0
    if greedy and body.n > 1:
        raise BadRequest(f"n must be 1 when using greedy sampling, got {body.n}.")
    return Sampling(
        limit=limit,
        seed=None if greedy else config.seed if body.seed is None else body.seed,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop),
        include_stop=body.include_stop_str_in_output,
        stop_ids=frozenset(body.stop_token_ids),
        ignore_eos=body.ignore_eos,
        eos_first=body.logit_bias.get(str(EOS), 0) >= 50,
        min_tokens=body.min_tokens,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        repetition_penalty=body.repetition_penalty,
        script=script,
    )


def _forced(body: ChatBody) -> tuple[Tool | None, Function | None]:
    choice = body.tool_choice
    if isinstance(choice, str):
        if choice != "required" or not body.tools:
            return None, None
        function = body.tools[0].function
        return Tool(function.name, "tool_calls"), function
    for tool in body.tools:
        if tool.function.name == choice.function.name:
            return Tool(tool.function.name, "stop"), tool.function
    raise BadRequest("The tool specified in `tool_choice` does not match any of the specified `tools`")


def _script(body: Common, function: Function | None) -> tuple[tuple[int, ...], str]:
    """Ids that a grammar forces; or what is wrong with the grammar, which the engine finds only later."""
    form = body.response_format
    if function is None and form.type not in ("json_schema", "json_object"):
        return (), ""
    try:
        return tuple(encode(schema.text(function.parameters if function else form.json_schema.schema))), ""
    except BadRequest as error:
        return (), error.message
