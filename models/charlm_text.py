"""The characters that charlm knows, and their numbers; without torch, so that what runs the model needs none."""

from collections.abc import Iterable

import numpy as np

# Every character of shakespeare.txt, in code point order; a character's place here is its token.
VOCABULARY = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def encode(text: str) -> np.ndarray:
    """The tokens of `text`: int64, (len(text),).  A character outside VOCABULARY is a ValueError that names it."""
    tokens = np.array([VOCABULARY.find(character) for character in text], dtype=np.int64)
    if (tokens < 0).any():
        unknown = "".join(sorted(set(text) - set(VOCABULARY)))
        raise ValueError(f"the model does not know {unknown!r}; it knows {VOCABULARY!r}")
    return tokens


def decode(tokens: Iterable[int]) -> str:
    """The text of `tokens`, such as an integer array (time,)."""
    return "".join(VOCABULARY[token] for token in tokens)
