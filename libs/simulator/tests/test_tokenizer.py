"""Text and ids say the same everywhere."""

from hypothesis import given
from hypothesis import strategies as st

from simulator.template import Message, render
from simulator.tokenizer import decode, encode
from simulator.vocabulary import BYTES, IDS, SIZE, glyph


@given(st.text())
def test_any_text_survives_the_round_trip(text):
    assert decode(encode(text)) == text


@given(st.lists(st.integers(9, SIZE - 1)))
def test_ids_decode_to_their_bytes(ids):
    assert decode(ids) == b"".join(BYTES[i] for i in ids).decode("utf-8", "replace")


def test_layout_is_that_of_the_recorded_tokenizer():
    assert [IDS[b] for b in (b"H", b"o", b",", b"!", b"\n", b"-", b".")] == [48, 87, 20, 9, 207, 21, 22]
    assert glyph(207) == "Ċ"
    assert glyph(IDS[b" world"]) == "Ġworld"
    ids = render([Message("user", "Hello, world!")]).ids
    assert len(ids) == 11
    assert decode(ids) == "<s><|user|>Hello, world!<|end|>\n<|assistant|>"


async def test_tokenize_counts_what_usage_counts(http):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "日本 and more 🙂"}]
    async with http.post("/tokenize", json={"messages": messages}) as response:
        counted = await response.json()
    ask = {"messages": messages, "max_tokens": 1, "return_token_ids": True}
    async with http.post("/v1/chat/completions", json=ask) as response:
        reply = await response.json()
    assert reply["usage"]["prompt_tokens"] == counted["count"] == len(counted["tokens"])
    assert reply["prompt_token_ids"] == counted["tokens"]
    async with http.post("/detokenize", json={"tokens": counted["tokens"]}) as response:
        assert "日本 and more 🙂" in (await response.json())["prompt"]
