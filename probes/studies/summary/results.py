"""The outcome of a claim that is checked against results of studies.

Contract: `read_results(studies)` gives a `StudyResult` for every RESULT.json one folder down, by name. A rule answers
for each result of its study; `decide` makes one outcome of the answers:

- *reproduced*: every study that could tell says yes; *not reproduced*: every one says no;
- *mixed*: they disagree, or one is too uncertain to say;
- *not testable here*: no study could tell, and in one of them the model or the behaviour gives nothing to test on;
- *not measured*: nothing was measured that could tell.

Whatever a RESULT.json lacks is a DataError that names the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from probes.errors import DataError
from probes.evaluation import Interval
from probes.studies.framework.result import FILE, StudyResult, read_result
from probes.studies.framework.verdict import ClaimOutcome, Support

Figures = Mapping[str, Any]
T = TypeVar("T")


def label(result: StudyResult) -> str:
    """A result's name, for tables; links to its part of the page."""
    return f"[{result.name}](#{result.name})" + (" (synthetic)" if result.synthetic else "")


@dataclass(frozen=True)
class Finding:
    """What one result says of a claim, and the figures that say so."""

    support: Support
    words: str


@dataclass(frozen=True)
class Rule:
    """`when` ends the sentence "reproduced when ..."; `apply` answers for each result, under its label.

    `power` says which effect a result could have shown; `methods` are those of the planted-heads study that the claim
    rests on.
    """

    when: str
    apply: Callable[[Sequence[StudyResult]], list[tuple[str, Finding]]]
    power: Callable[[Figures], str]
    methods: tuple[str, ...] = ()


def each(judge: Callable[[Figures], Finding]) -> Callable[[Sequence[StudyResult]], list[tuple[str, Finding]]]:
    """A rule that looks at one result at a time."""
    return lambda results: [(label(r), whole(r, judge)) for r in results]


def whole(result: StudyResult, use: Callable[[Figures], T]) -> T:
    """What `use` makes of a result's data. DataError, with the file's name, where the data lacks what it needs."""
    try:
        return use(result.measured)
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else f"does not fit ({type(error).__name__}: {error})"
        raise DataError(f"{result.path}: as a {result.study} study it {lacks}; run the study again") from error


def decide(seen: Sequence[Finding]) -> ClaimOutcome:
    """One outcome of what all results say."""
    answers = {s.support for s in seen}
    decisive = answers & {Support.YES, Support.NO, Support.UNSURE}
    if decisive == {Support.YES}:
        return ClaimOutcome.REPRODUCED
    if decisive == {Support.NO}:
        return ClaimOutcome.NOT_REPRODUCED
    if decisive:
        return ClaimOutcome.MIXED
    return ClaimOutcome.NOT_TESTABLE if Support.UNTESTABLE in answers else ClaimOutcome.NOT_MEASURED


def read_results(studies: Path) -> list[StudyResult]:
    """All results below a folder of studies, by name. DataError names what cannot be read."""
    if not studies.is_dir():
        raise DataError(f"studies: {studies} is no folder")
    return [read_result(path) for path in sorted(studies.glob(f"*/{FILE}"))]


def interval(figure: Figures) -> Interval:
    """A figure of a RESULT.json."""
    return Interval(**{key: figure[key] for key in ("value", "low", "high", "n")})


def share(figure: Figures) -> str:
    """A rate with its interval and what it was counted on."""
    return f"{interval(figure)} (n = {figure['n']})"
