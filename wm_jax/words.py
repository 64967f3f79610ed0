"""Words as numbers: a sentence is the ids of its words, which a model's text encoder embeds.

Words that the twins world says have ids of their own, in the order of `VOCABULARY`; any other word
falls into one of `SPARE` ids by a checksum, so that no sentence of another data set is refused. A
number is told as itself ("by 2.5"): its id is less than 0, see `NUMBERS`.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
from jaxtyping import Float

LENGTH = 32  # words of a sentence that are read; the rest is not
SPARE = 64
#: Adding a word at the end leaves the ids of the others what they were.
VOCABULARY = (
    *("red", "orange", "lime", "green", "mint", "azure", "blue", "purple", "pink"),
    *("circle", "square", "triangle"),
    *("the", "a", "an", "and", "is", "to", "in", "at", "with", "of"),
    *("moved", "pushed", "turns", "disappears", "appears", "now", "pulls", "pushes"),
    *("left", "right", "up", "down", "top", "bottom", "middle"),
    *("light", "gets", "dimmer", "brighter", "camera", "moves", "zooms", "out", "gravity"),
    *("hand", "two", "bar", "bars", "front"),
    *("by", "px", "times"),
)
_IDS = {word: number + 1 for number, word in enumerate(VOCABULARY)}
#: Ids go from 1 to IDS - 1; 0 is no word. There is room for as many words again.
IDS = 192
#: A number is itself less NUMBERS, which leaves float32 a step of 0.00006; larger ones are cut off
#: before them. All share the embedding of NUMBER, an id that no word has.
NUMBERS, NUMBER = 512.0, IDS - SPARE - 1
_NUMBER = r"(?<![a-z0-9])-?[0-9]++(?:\.[0-9]+)?+(?![a-z])"
_WORD = re.compile(rf"({_NUMBER})|([a-z0-9]+)")


def encode(sentence: str) -> Float[np.ndarray, "32"]:
    """Ids of the first `LENGTH` words, then zeros, as float32."""
    found = _WORD.findall(sentence.lower())[:LENGTH]
    ids = [_number(number) if number else _id(word) for number, word in found]
    return np.pad(np.asarray(ids, np.float32), (0, LENGTH - len(ids)))


def _number(word: str) -> float:
    return min(max(float(word), 1 - NUMBERS), NUMBERS - 1) - NUMBERS


def _id(word: str) -> int:
    return _IDS.get(word) or IDS - SPARE + zlib.crc32(word.encode()) % SPARE
