"""From a conversation to the text that the model reads, with no text of it left out.

Contract: `render` gives the model's own template over the turns with their tools. Where the template refuses, or what
it made lacks a turn's content, a tool call's name or arguments, or a tool's name or description, the forms of
`probes.model.adapt` are tried: one more step at a time until the template takes it whole, then without each step that
was not needed. `adapted` says in closed wording what was changed. Where each form that is taken lacks something, the
first of them is used, and `adapted` says that too. If no form is taken at all, the ModelError of the template's refusal
is raised; it names roles and no text.

What counts as left out: text is looked for without the white space around it, as it stands or as JSON escapes it. One
loss is the template's own: reasoning of the assistant's turns, up to `</think>`, which reasoning models do not read
again. It stays out, and `adapted` says so. Names of people and ids of calls are not looked for.

Time is linear in the text for each form tried, and there are at most two forms a step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from probes.errors import ModelError
from probes.model.adapt import STEPS, adapt, call_of, compact_json, content_of, is_word, with_arguments
from probes.model.template import ChatTemplate, TemplateRefusedError

REASONING_LEFT_OUT = "reasoning of an earlier turn left out by the template"
TEXT_LEFT_OUT = "text left out by the template in every form"
_END_OF_REASONING = "</think>"
# A template may move a turn. Each moved one costs a search from the start, so an endless number is taken for a loss.
_MOST_MOVED = 64
# Names and values of one call or tool that are looked for in any order.
_FEW = 256
# Letters that a template may write around a turn.
_MARKUP = 2000


@dataclass(frozen=True)
class Rendered:
    """A conversation as text. `how` is `adapted` where turns were changed; `adapted` says what was, or was left out.

    `turns` and `tools` are those that the template was given in the end, `sent` and `sent_tools` those that came, and
    `steps` how the first were made of the second (`form_of`).
    """

    text: str
    how: Literal["template", "adapted"]
    adapted: tuple[str, ...] = ()
    turns: Sequence[Mapping[str, Any]] = field(default=(), repr=False, compare=False)
    tools: Sequence[Mapping[str, Any]] = field(default=(), repr=False, compare=False)
    sent: Sequence[Mapping[str, Any]] = field(default=(), repr=False, compare=False)
    sent_tools: Sequence[Mapping[str, Any]] = field(default=(), repr=False, compare=False)
    steps: tuple[str, ...] | None = field(default=None, repr=False, compare=False)


def form_of(
    turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], steps: Sequence[str] | None
) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]], tuple[str, ...]]:
    """Turns and tools as the template is given them, and what was changed: nothing where there are no steps."""
    if steps is not None:
        return adapt(turns, tools, steps)
    return (with_arguments(turns) if any(turn.get("tool_calls") for turn in turns) else turns), tools, ()


def render(
    template: ChatTemplate,
    turns: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    answering: bool = True,
) -> Rendered:
    """The conversation as the model reads it. Raises ModelError where no form of it is taken."""
    tools = tools or ()
    search = _Search(template, turns, tools, answering)
    forced = () if all(is_word(turn.get("role")) for turn in turns) else ("unknown",)
    found = search.form(None) if not forced else None
    if found is not None:
        return found
    steps = [step for step in STEPS if step in forced]
    for step in STEPS:
        if step not in steps:
            if not search.changes(steps, step):
                continue
            steps.append(step)
        found = search.form(steps)
        if found is not None:
            break
    if found is None:
        return search.lossy()
    # The step that helped stays. Of those before it, the ones that change most are left out first.
    for step in reversed(steps[:-1]):
        if step in forced:
            continue
        fewer = [other for other in steps if other != step]
        shorter = search.form(fewer)
        if shorter is not None:
            steps, found = fewer, shorter
    return found


class _Search:
    """Tries forms of one conversation."""

    def __init__(
        self,
        template: ChatTemplate,
        turns: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        answering: bool,
    ) -> None:
        self._template, self._turns, self._tools, self._answering = template, turns, tools, answering
        self._refusal: ModelError | None = None
        self._lossy: Rendered | None = None

    def form(self, steps: Sequence[str] | None) -> Rendered | None:
        turns, tools, said = form_of(self._turns, self._tools, steps)
        try:
            text = self._template.text(turns, tools, answering=self._answering)
        except ModelError as error:
            if isinstance(error, TemplateRefusedError):
                error = TemplateRefusedError(error.model, self._turns, error.error)
            self._refusal = self._refusal or error
            return None
        lost = left_out(text, self._turns, self._tools)
        notes = {"text": (*said, TEXT_LEFT_OUT), "reasoning": (*said, REASONING_LEFT_OUT), "nothing": said}[lost]
        taken = None if steps is None else tuple(steps)
        made = Rendered(text, "adapted" if said else "template", notes, turns, tools, self._turns, self._tools, taken)
        if lost == "text":
            self._lossy = self._lossy or made
            return None
        return made

    def lossy(self) -> Rendered:
        """The first form that was taken, though it lacks text; else the refusal is raised."""
        if self._lossy is not None:
            return self._lossy
        raise self._refusal or ModelError("messages: the chat template refused every form of this conversation")

    def changes(self, steps: Sequence[str], step: str) -> bool:
        before, after = (adapt(self._turns, self._tools, chosen)[:2] for chosen in (steps, [*steps, step]))
        return before != after


def left_out(
    text: str, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
) -> Literal["nothing", "reasoning", "text"]:
    """What of the conversation is not in a rendered text."""
    lost: Literal["nothing", "reasoning", "text"] = "nothing"
    # System turns and tools are what templates like to move, so each kind is followed by itself.
    of_system, of_others = _Cursor(text), _Cursor(text)
    for turn in turns:
        role = turn.get("role")
        cursor = of_system if role == "system" else of_others
        content = content_of(turn)
        if role == "assistant" and _END_OF_REASONING in content:
            answer = content.rpartition(_END_OF_REASONING)[2]
            kept = cursor.holds_either(content, answer)
            if kept is None:
                return "text"
            lost = lost if kept == content else "reasoning"
        elif not cursor.holds(content):
            return "text"
        for call in turn.get("tool_calls") or ():
            if not _holds_call(cursor, call):
                return "text"
    of_tools = _Cursor(text)
    return lost if all(_holds_tool(of_tools, tool) for tool in tools) else "text"


class _Cursor:
    """Follows a rendered text from needle to needle, so that looking for all turns in order is one pass."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._moved = 0

    def holds(self, needle: str) -> bool:
        """Whether it is there, and then go on behind it."""
        needle = needle.strip()
        return not needle or any(self._find(form) for form in _forms(needle))

    def holds_either(self, whole: str, end: str) -> str | None:
        """Which of a text and its end is there: the whole one only where the end is near."""
        start = self._place
        if not self.holds(end):
            return None
        reach = self._place
        self._place = start
        if self.holds_near(whole, reach=reach - start):
            return whole
        self._place = reach
        return end

    def holds_near(self, *needles: str, reach: int = 0) -> bool:
        """Whether they are all there, not far behind the last needle (none yet: anywhere); else it stays in place."""
        start = end = self._place
        for needle in needles:
            until = start + reach + 6 * sum(map(len, needles)) + _MARKUP if start else len(self._text)
            stripped = needle.strip()
            found = ((self._text.find(form, start, until), len(form)) for form in _forms(stripped))
            place, length = next((at for at in found if at[0] >= 0), (-1, 0))
            if place < 0:
                return False
            end = max(end, place + length)
        self._place = end
        return True

    def holds_all(self, needles: Sequence[str]) -> bool:
        """In any order where they are few: the names and values of one call or tool."""
        start = furthest = self._place
        for needle in needles:
            if len(needles) <= _FEW:
                self._place = start
            if not self.holds(needle):
                return False
            furthest = max(furthest, self._place)
        self._place = furthest
        return True

    def _find(self, form: str) -> bool:
        place = self._text.find(form, self._place)
        if place >= 0:
            self._place = place + len(form)
            return True
        if self._moved < _MOST_MOVED:
            self._moved += 1
            return self._text.find(form, 0, self._place) >= 0
        return False


def _forms(needle: str) -> Iterator[str]:
    yield needle
    for ascii_only in (False, True):
        escaped = json.dumps(needle, ensure_ascii=ascii_only)[1:-1]
        if escaped != needle:
            yield escaped


def _holds_call(cursor: _Cursor, call: Mapping[str, Any]) -> bool:
    function = call_of(call)
    name, arguments = str(function["name"]), function["arguments"]
    # The usual forms first: a line of JSON, or the string as it came.
    whole = arguments if isinstance(arguments, str) else compact_json(arguments)
    return cursor.holds_near(name, whole) or cursor.holds_all([name, *_leaves(arguments)])


def _leaves(value: Any) -> Iterator[str]:
    """Keys and values in their order, as a template may write them one by one."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value
    elif value is not None and not isinstance(value, bool):  # true is True in some templates
        yield json.dumps(value)


def _holds_tool(cursor: _Cursor, tool: Mapping[str, Any]) -> bool:
    return cursor.holds_near(compact_json(tool)) or cursor.holds_all(list(_tool_words(tool.get("function", tool))))


def _tool_words(part: Any, key: str = "") -> Iterator[str]:
    """Names and descriptions: what says what it does. How a type is written is the template's affair."""
    if isinstance(part, Mapping):
        for name, item in part.items():
            yield from _tool_words(item, str(name))
    elif isinstance(part, list):
        for item in part:
            yield from _tool_words(item)
    elif isinstance(part, str) and key in ("name", "description"):
        yield part
