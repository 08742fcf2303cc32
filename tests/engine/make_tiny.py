#!/usr/bin/env python3
"""Make a tiny Llama with random weights, a tokenizer and a chat template, without any download, for vLLM to serve.

Its text is noise; token counts, limits and timing are real. A reply ends at max_tokens; for finish_reason "stop" send
"logit_bias": {"2": 100}, and "ignore_eos": true makes the length certain. With the defaults the text is printable ASCII
and, when greedy, soon repeats itself; with --layers 4 --hidden 128 --seed 5 --init 0.3 it does not settle, and holds
broken UTF-8 and control characters.
"""

import argparse

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

HEAD_DIM = 32  # vLLM's attention on the CPU takes this one
CONTEXT = 4096
BOS, EOS = 1, 2  # places in SPECIAL
SPECIAL = [
    "<unk>",
    "<s>",
    "</s>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|developer|>",
    "<|end|>",
]
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if tools %}<|system|>tools: {{ tools | tojson }}<|end|>\n{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% elif m['content'] %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endif %}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    "<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXT = """The quick brown fox jumps over the lazy dog. Hello, world! How are you today?
A gateway measures tokens, keeps budgets, and sends each request to a model server.
What is the weather in Paris? Tell me a story about a river, a mountain and a small town.
def add(a, b):\n    return a + b\n{"name": "get_weather", "arguments": {"city": "Paris"}}
Count from one to ten: one two three four five six seven eight nine ten. 0123456789
"""


def make_tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        min_frequency=2,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=SPECIAL[BOS],
        eos_token=SPECIAL[EOS],
        unk_token=SPECIAL[0],
        pad_token=SPECIAL[EOS],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, layers: int, hidden: int, init: float) -> LlamaForCausalLM:
    heads = hidden // HEAD_DIM
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=HEAD_DIM,
        max_position_embeddings=CONTEXT,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
        tie_word_embeddings=False,
        initializer_range=init,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=EOS)
    head = model.lm_head.weight
    with torch.no_grad():
        head.mul_(0.16 / init)  # spread the logits, so that greedy choices are stable
        # Llama has no bias, so make one: component 0 of every hidden state is large, and the ids that must not be
        # emitted have a large negative weight on it.
        model.model.embed_tokens.weight[:, 0] = 2.0
        head[:, 0] = 0
        for token, i in tokenizer.get_vocab().items():
            text = tokenizer.decode([i])
            if i != EOS and (token in SPECIAL or not (text.isascii() and text.isprintable())):
                head[i, 0] = -20.0
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=64, help=f"a multiple of {HEAD_DIM}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=float, default=0.02, help="scale of the weights")
    args = parser.parse_args()
    logging.disable_progress_bar()
    torch.manual_seed(args.seed)
    tokenizer = make_tokenizer()
    make_model(tokenizer, args.layers, args.hidden, args.init).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
