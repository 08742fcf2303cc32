"""Which bytes each token id stands for.

The layout is that of a byte-level BPE with nine special tokens, so ids 0–264 equal those of the recorded engine:
specials, then the 256 bytes in GPT-2's printable order, then words.
"""

from typing import Final

import msgspec

SPECIALS: Final = (
    "<unk>",
    "<s>",
    "</s>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|developer|>",
    "<|end|>",
)
BOS: Final = 1
EOS: Final = 2
SPECIAL_IDS: Final = {text: i for i, text in enumerate(SPECIALS)}

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [b for b in range(256) if b not in set(_PRINTABLE)]
BYTE_ORDER: Final = (*_PRINTABLE, *_HIDDEN)
_GLYPHS = {b: chr(b) for b in _PRINTABLE} | {b: chr(0x100 + i) for i, b in enumerate(_HIDDEN)}

_WORDS = """
the a of and to in is that for on with as by it from at be this an are or was not have but they which you one all
were when we there can more if out so up into them then some could time these two may first made over new sound take
only little work know place year live back give most very after thing our just name good sentence man think say
great where help through much before line right too mean old any same tell boy follow came want show also around
form three small set put end does another well large must big even such because turn here why ask went men read need
land different home us move try kind hand picture again change off play spell air away animal house point page
letter mother answer found study still learn should world river mountain town quick brown fox jumps lazy dog story
gateway token budget server model request measure count number weather light water stone bridge morning evening
garden window paper silver copper cloud forest road journey measures keeps sends each what how today measurements
""".split()  # noqa: SIM905  # a list would take a line for each word
_PARTS = ["ell", "ing", "er", "ed", "es", "ion", "al", "re", "st", "th", "he", "an", "in", "en", "or", "ar"]
WORDS: Final = tuple(dict.fromkeys(" " + w for w in _WORDS))

BYTES: Final[tuple[bytes, ...]] = (
    *(s.encode() for s in SPECIALS),
    *(bytes([b]) for b in BYTE_ORDER),
    *(w.encode() for w in (*WORDS, *_PARTS)),
)
SIZE: Final = len(BYTES)
LONGEST: Final = max(len(b) for b in BYTES)
IDS: Final = {BYTES[i]: i for i in range(len(SPECIALS), SIZE)}


def _whole(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


# Text of each id that is complete UTF-8 by itself, and the same as JSON: most tokens are sent without any encoding.
TEXT: Final = tuple(_whole(b) for b in BYTES)
JSON: Final = tuple(None if t is None else msgspec.json.encode(t) for t in TEXT)


def glyph(token: int) -> str:
    """The token as vLLM's /tokenize prints it: bytes as GPT-2 glyphs (a space is `Ġ`)."""
    if token < len(SPECIALS):
        return SPECIALS[token]
    return "".join(_GLYPHS[b] for b in BYTES[token])
