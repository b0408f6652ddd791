"""Control tokens in what people write: counted, and read as plain text where the serving stack reads them so.

A control token is a token that the tokenizer marks as special (`<|im_end|>`, `</s>`). Added tokens without that mark
(Qwen's `<tool_call>`, `<think>`) are not: models and clients write them as text, and stacks that escape leave them.

Contract: `count` is the number of their strings in texts. Under `as_text` a control token in an input is made of the
tokens of its letters, and those that the template writes stay what they are: `mark` goes over the inputs before the
template, `settled` takes what the template made of them to the text that is tokenised, `plain_encoding` tokenises that,
or a text that has no template around it.
Where no control token is in the inputs, the ids are those of the tokenizer itself.

It is done by a copy of the tokenizer in which every control token has a name that nobody can guess, in its added tokens
and in its vocabulary: the strings of old are then letters, while everything else (normalisation, prefix spaces, what a
token takes of the spaces around it) goes on as before.

Does not know: tokenizers without a `tokenizers` backend, for which `as_text` is refused.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal, get_args

from probes.errors import ModelError

SpecialTokens = Literal["as_tokens", "as_text"]
SPECIAL_TOKENS: tuple[SpecialTokens, ...] = get_args(SpecialTokens)


class ControlTokens:
    """The control tokens of one tokenizer, as they were at the first use."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Letters and digits alone: no template trims, escapes or splits them, and no sender knows them.
        self._secret = f"awry{secrets.token_hex(8)}x"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Longest first, so that one which begins with another is found whole."""
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        found = {str(token) for token in added.values() if token.special} | set(self._tokenizer.all_special_tokens)
        return tuple(sorted(filter(None, found), key=lambda name: (-len(name), name)))

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return re.compile(_alternatives(self.names)) if self.names else None

    def count(self, texts: Iterable[str]) -> int:
        """How many control tokens the texts hold."""
        pattern = self._pattern
        return sum(len(pattern.findall(text)) for text in texts) if pattern is not None else 0

    def found_in(self, value: Any) -> bool:
        """Whether a string in nested lists and objects, keys included, holds one."""
        pattern = self._pattern
        return pattern is not None and any(pattern.search(text) for text in strings(value))

    def mark(self, value: Any) -> Any:
        """The value with a mark before each control token of its strings."""
        pattern = self._pattern
        if pattern is None:
            return value
        if isinstance(value, str):
            return pattern.sub(lambda match: self._secret + match[0], value)
        if isinstance(value, Mapping):
            return {self.mark(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(item) for item in value]
        return value

    def settled(self, text: str) -> str:
        """What a template made of marked inputs, with the template's own control tokens under their secret names."""
        pattern = self._pattern
        if pattern is None:
            return text
        marked = re.compile(f"({self._secret})?({pattern.pattern})")
        text = marked.sub(lambda found: found[2] if found[1] else self._renamed(found[2]), text)
        # A template that cut between a mark and its token leaves the mark alone.
        return re.sub(f"{self._secret}(?!\\d+z)", "", text)

    def marked_ids(self, text: str) -> list[int]:
        """Ids of a text that a template made of marked inputs."""
        return self.plain_ids(self.settled(text))

    def plain_ids(self, text: str) -> list[int]:
        """Ids of a text in which no control token counts as one."""
        return self.ids_of(self.plain_encoding(text))

    def plain_encoding(self, text: str) -> Any:
        """The same as an `Encoding`, whose ids are those of the copy (`ids_of` has the tokenizer's)."""
        return self._copy[0].encode(text, add_special_tokens=False)

    def ids_of(self, encoding: Any) -> list[int]:
        """The tokenizer's ids of what `plain_encoding` gave."""
        original = self._copy[1]
        return [original.get(i, i) for i in encoding.ids]

    def breaks(self, text: str, place: int) -> bool:
        """Whether a control token of the text goes over this place."""
        pattern = self._pattern
        if pattern is None:
            return False
        longest = max(map(len, self.names))
        near = pattern.finditer(text, max(0, place - longest), place + longest)
        return any(found.start() < place < found.end() for found in near)

    def _renamed(self, name: str) -> str:
        return f"{self._secret}{self.names.index(name)}z"

    @cached_property
    def _copy(self) -> tuple[Any, dict[int, int]]:
        """The copy, and its ids of control tokens with the original's."""
        from tokenizers import Tokenizer

        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ModelError("special_tokens: as_text needs a tokenizer.json; this tokenizer has none, use as_tokens")
        settings = json.loads(backend.to_str())
        new = {name: self._renamed(name) for name in self.names}
        for token in settings["added_tokens"]:
            token["content"] = new.get(token["content"], token["content"])
        _rename_vocabulary(settings["model"], new)
        # It only adds what `add_special_tokens=False` leaves out, and names tokens of old.
        settings["post_processor"] = settings["truncation"] = settings["padding"] = None
        try:
            copy = Tokenizer.from_str(json.dumps(settings))
        except Exception as error:  # whatever `tokenizers` raises: it has no class of its own
            raise ModelError("special_tokens: this tokenizer cannot read as_text, use as_tokens") from error
        pairs = ((copy.token_to_id(name), backend.token_to_id(old)) for old, name in new.items())
        return copy, {mine: theirs for mine, theirs in pairs if mine is not None and theirs is not None}


def _alternatives(names: Iterable[str]) -> str:
    """A pattern for the names in which equal beginnings are tried once; the longest name that fits is found.

    Llama 3 has 256 names: tried one by one at every `<`, a megabyte of them takes a second.
    """
    ends: dict[str, list[str]] = {}
    for name in names:
        ends.setdefault(name[:1], []).append(name[1:])
    may_end = "" in ends
    ends.pop("", None)
    branches = [re.escape(letter) + _alternatives(rest) for letter, rest in ends.items()]
    if len(branches) <= 1 and not may_end:
        return "".join(branches)
    if not branches:
        return ""
    return f"(?:{'|'.join(branches)}){'?' if may_end else ''}"


def _rename_vocabulary(model: dict[str, Any], new: Mapping[str, str]) -> None:
    # Where the model's own vocabulary has the string, it could make the token of plain letters.
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {new.get(piece, piece): i for piece, i in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[new.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in new:
        model["unk_token"] = new[model["unk_token"]]


def strings(value: Any) -> Iterable[str]:
    """All strings of nested lists and objects, keys included."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            waiting += part
