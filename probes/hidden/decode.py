"""Text that stands in a message in another form.

Contract: `decoded(text, budget)` gives the payloads of a text that are language once they are decoded, in their order
and without overlaps. What is decoded is decoded again (`Budget.depth`) and normalised; the characters of all that was
decoded, at every depth, and the number of payloads are bounded, and what is over is cut off. Time is linear in the
text and the budget, whatever is nested.
`spliced(text, payloads)` puts payloads in the places of their encoded forms.

Does not know: keys. What is encrypted stays as it is, and `probes.hidden.unreadable` may say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from probes.hidden import ciphers, encodings, spelt
from probes.hidden.encodings import Span
from probes.hidden.likeness import is_language, without_surrogates
from probes.hidden.normal import normalised
from probes.hidden.payloads import DEFAULT_BUDGET, Budget, Payload
from probes.hidden.shape import shape_of


class _Purse:
    """What is left of a budget."""

    def __init__(self, budget: Budget) -> None:
        self.characters = budget.characters
        self.payloads = budget.payloads

    @property
    def empty(self) -> bool:
        return self.payloads <= 0 or self.characters <= 0

    def paid(self, text: str) -> str:
        """As much of the text as there is budget for."""
        part = text[: self.characters]
        self.characters -= len(part)
        return part


def decoded(text: str, budget: Budget = DEFAULT_BUDGET) -> list[Payload]:
    """The payloads of a text."""
    return _decoded(text, budget, 1, _Purse(budget))


def _decoded(text: str, budget: Budget, depth: int, purse: _Purse) -> list[Payload]:
    found: list[Payload] = []
    taken: list[tuple[int, int]] = []
    for span in _spans(text, taken):
        if purse.empty:
            break
        if any(span.start < stop and start < span.stop for start, stop in taken):
            continue
        inner = normalised(without_surrogates(purse.paid(span.text)))
        below = _decoded(inner, budget, depth + 1, purse) if depth < budget.depth else []
        plain = spliced(inner, below)
        if is_language(plain):
            deepest = max((each.depth for each in below), default=0)
            purse.payloads -= 1
            found.append(Payload(span.kind, plain, span.start, span.stop, deepest + 1))
            taken.append((span.start, span.stop))
    return sorted(found, key=lambda payload: payload.start)


def _spans(text: str, taken: Sequence[tuple[int, int]]) -> Iterator[Span]:
    """Candidates: encodings first, then ciphers in what those left."""
    shape = shape_of(text)
    for gate, finder in encodings.FINDERS:
        if gate(text, shape):
            yield from finder(text)
    rest = _blanked(text, taken)
    if spelt.morse_gate(rest):
        yield from spelt.morse_runs(rest)
    if (shape.digits or "@" in rest or "$" in rest or "!" in rest) and spelt.leet_gate(rest):
        yield from spelt.leet_runs(rest)
    yield from ciphers.exchanges(rest)


def _blanked(text: str, taken: Iterable[tuple[int, int]]) -> str:
    for start, stop in taken:
        text = text[:start] + " " * (stop - start) + text[stop:]
    return text


def spliced(text: str, payloads: Iterable[Payload]) -> str:
    """The text with payloads in the places of their encoded forms; they must be in order."""
    pieces = []
    at = 0
    for payload in payloads:
        pieces += [text[at : payload.start], payload.text]
        at = payload.stop
    return "".join((*pieces, text[at:]))
