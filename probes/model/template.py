"""The chat template of a tokenizer: which one is used, on which date, and its hash.

Contract: `ChatTemplate(tokenizer, name).text(turns, tools, answering)` is what the tokenizer's own template makes of
the turns, and nothing else; one that reads content in parts alone is given it in parts. Of several templates the one
called `tool_use` is used where tools are given, else `default`, as serving stacks do. Templates that print today's date
get a fixed one, by `date_string` and by `strftime_now`, so that a message scores alike every day. A refusal is a
ModelError that names roles and no text.

Does not know: what to do about a refusal (`probes.model.render`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from probes.errors import ModelError
from probes.hashing import sha256_text

# 1 January 2026, a Thursday, at midnight. The same words on every machine: no locale, no time zone.
TEMPLATE_DATE = "01 Jan 2026"
_DIRECTIVES = {
    **{"a": "Thu", "A": "Thursday", "w": "4", "u": "4", "d": "01", "e": " 1", "b": "Jan", "h": "Jan", "B": "January"},
    **{"m": "01", "y": "26", "Y": "2026", "G": "2026", "g": "26", "C": "20", "H": "00", "I": "12", "p": "AM"},
    **{"M": "00", "S": "00", "f": "000000", "z": "+0000", "Z": "UTC", "j": "001", "U": "00", "W": "00", "V": "01"},
    **{"c": "Thu Jan  1 00:00:00 2026", "x": "01/01/26", "X": "00:00:00", "D": "01/01/26", "F": "2026-01-01"},
    **{"T": "00:00:00", "R": "00:00", "s": "1767225600", "n": "\n", "t": "\t"},
    **{"-d": "1", "-m": "1", "-H": "0", "-I": "12", "-M": "0", "-S": "0", "-j": "1", "-y": "26"},
}
# Stands for a doubled % while directives are replaced.
_PERCENT = "\x00"

# A message that templates are tried with.
_WORD = "hello"

KNOWN_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


def _date_macro() -> str:
    """A definition of `strftime_now` that goes before the template, where it hides the one of the environment.

    It is a line of its own, whose end the environment trims: the template's own first line stays the first.
    """
    chain = f".replace('%%', {json.dumps(_PERCENT)})"
    chain += "".join(f".replace('%{name}', {json.dumps(value)})" for name, value in _DIRECTIVES.items())
    chain += f".replace({json.dumps(_PERCENT)}, '%')"
    return "{% macro strftime_now(format) %}{{ format" + chain + " }}{% endmacro %}\n"


_DATE_MACRO = _date_macro()


class TemplateRefusedError(ModelError):
    """A template refused turns; `error` is the class of what it raised.

    A role that is none of the known ones may be text, and is called `other`.
    """

    def __init__(self, model: str, turns: Sequence[Mapping[str, Any]], error: str) -> None:
        roles = [role if (role := turn.get("role")) in KNOWN_ROLES else "other" for turn in turns[:20]]
        more = f" and {len(turns) - 20} more turns" if len(turns) > 20 else ""
        super().__init__(f"messages: the chat template of {model} refused the roles {roles}{more} ({error})")
        self.model, self.error = model, error


class NoTemplateError(ModelError):
    """A tokenizer without a chat template."""


def no_template(model: str) -> NoTemplateError:
    """A base model, or a checkpoint whose template is kept elsewhere."""
    return NoTemplateError(
        f"model: {model} has no chat template; use an instruct model, or name a file with the template that it is "
        "served with (setting chat_template, AWRY_CHAT_TEMPLATE)"
    )


def _in_parts(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    content = turn.get("content")
    return {**turn, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else turn


class ChatTemplate:
    """The template of one tokenizer; the tokenizer's `chat_template` may change between calls."""

    def __init__(self, tokenizer: Any, model: str) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._by_parts: dict[str, bool] = {}

    @property
    def sha256(self) -> str:
        """A hash of all its templates."""
        template = self._tokenizer.chat_template or ""
        return sha256_text(template if isinstance(template, str) else json.dumps(template, sort_keys=True))

    def text(
        self,
        turns: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        answering: bool = True,
    ) -> str:
        """The rendered turns; with `answering`, up to where the reply starts."""
        source = self._source(bool(tools))
        given = [_in_parts(turn) for turn in turns] if self._reads_parts(source) else turns
        try:
            return self._rendered(source, given, tools, answering)
        except Exception as error:  # jinja raises its own and the template's errors; none may carry prompt text
            raise TemplateRefusedError(self._model, turns, type(error).__name__) from None

    def check(self) -> None:
        """ModelError where there is no template, or it does not take one user's message."""
        self._source(with_tools=False)
        self.text([{"role": "user", "content": _WORD}])

    def _rendered(
        self,
        source: str,
        turns: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        answering: bool,
    ) -> str:
        options: dict[str, Any] = {"tools": list(tools)} if tools else {}
        text: str = self._tokenizer.apply_chat_template(
            list(turns),
            tokenize=False,
            chat_template=source,
            add_generation_prompt=answering,
            date_string=TEMPLATE_DATE,
            **options,
        )
        return text

    def _reads_parts(self, source: str) -> bool:
        """Whether a template reads content in parts alone, as those of models that take images may: they leave out a
        string."""
        if source not in self._by_parts:
            turn = {"role": "user", "content": _WORD}
            self._by_parts[source] = _WORD not in self._trial(source, turn) and (
                _WORD in (made := self._trial(source, _in_parts(turn))) and "text" not in made
            )
        return self._by_parts[source]

    def _trial(self, source: str, turn: Mapping[str, Any]) -> str:
        try:
            return self._rendered(source, [turn], None, True)
        except Exception:  # the same
            return ""

    def _source(self, with_tools: bool) -> str:
        template = self._tokenizer.chat_template
        if isinstance(template, Mapping):
            name = "tool_use" if with_tools and "tool_use" in template else "default"
            if name not in template:
                names = ", ".join(sorted(template)) or "none"
                raise ModelError(f"model: {self._model} has several chat templates ({names}) and none called default")
            template = template[name]
        if not template:
            raise no_template(self._model)
        return _DATE_MACRO + template if "strftime_now" in template else str(template)
