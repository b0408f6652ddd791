"""A text that is tokenised once and cut at its tokens.

Contract: `len(text)` is its number of tokens, `text.piece(start, stop)` the part of the text that these tokens were
made of. Pieces that follow each other leave out no letter; one that ends within a letter ends before it.
`FastTokenizer` is the tokenizer where it says which letters a token was made of.

Does not know: what a piece's tokens are by themselves. They may differ from the text's at its ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any


class FastTokenizer:
    """A tokenizer's backend from `tokenizers`, where the tokenizer's own call does nothing but call it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def known(self) -> bool:
        """Whether this tokenizer has such a backend; without one `encoding` must not be called."""
        from transformers import PreTrainedTokenizerFast as Fast

        kind = type(self._tokenizer)
        names = ("__call__", "_encode_plus", "backend_tokenizer")
        return isinstance(self._tokenizer, Fast) and all(getattr(kind, n) is getattr(Fast, n) for n in names)

    def encoding(self, text: str) -> Any:
        """The `Encoding` of a text, with nothing added to it."""
        backend = self._tokenizer.backend_tokenizer  # what the tokenizer's own call calls, 12 us faster
        settings = (backend.truncation, backend.padding, backend.encode_special_tokens)
        if settings == (None, None, self._tokenizer.split_special_tokens):
            return backend.encode(text, add_special_tokens=False)
        return self._tokenizer(text, add_special_tokens=False).encodings[0]


class TokenisedText:
    """A text with the `tokenizers.Encoding` that was made of it."""

    def __init__(self, text: str, encoding: Any) -> None:
        self._text = text
        self._encoding = encoding

    def __len__(self) -> int:
        return len(self._encoding)

    def piece(self, start: int, stop: int) -> str:
        """The text from token `start` to before token `stop`."""
        return self._text[self.place(start) : self.place(stop)]

    def place(self, token: int) -> int:
        """The letter at which a token starts."""
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
