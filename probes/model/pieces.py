"""A long text that is tokenised once and cut at its tokens.

Contract: `len(text)` is its number of tokens, `text.piece(start, stop)` the part of the text that these tokens were
made of. Pieces that follow each other leave out no letter; one that ends within a letter ends before it.

Does not know: what a piece's tokens are by themselves. They may differ from the text's at its ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class TokenisedText:
    """A text with the `tokenizers.Encoding` that was made of it."""

    def __init__(self, text: str, encoding: Any) -> None:
        self._text = text
        self._encoding = encoding

    def __len__(self) -> int:
        return len(self._encoding)

    def piece(self, start: int, stop: int) -> str:
        """The text from token `start` to before token `stop`."""
        return self._text[self._place(start) : self._place(stop)]

    def _place(self, token: int) -> int:
        if token <= 0:
            return 0
        if token >= len(self):
            return len(self._text)
        return int(self._encoding.token_to_chars(token)[0])


class DecodedText:
    """The same from ids alone, for tokenizers that do not say where a token was."""

    def __init__(self, ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> None:
        self._ids = ids
        self._decode = decode

    def __len__(self) -> int:
        return len(self._ids)

    def piece(self, start: int, stop: int) -> str:
        """What the tokens are decoded to."""
        return self._decode(self._ids[start:stop])
