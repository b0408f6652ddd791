"""Results of studies on disk, and the outcome of a claim that is checked against them.

Contract: `read_results(studies)` gives one `Result` for every RESULT.json one folder down, by name. A rule answers for
each result of its kind; `decide` makes one outcome of the answers:

- *reproduced*: every study that could tell says yes; *not reproduced*: every one says no;
- *mixed*: they disagree, or one is too uncertain to say;
- *not testable here*: no study could tell, and in one of them the model or the behaviour gives nothing to test on;
- *not measured*: nothing was measured that could tell.

Whatever a RESULT.json lacks is a DataError that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from probes.errors import DataError
from probes.evaluation import Interval

StudyKind = Literal["direction", "transfer", "heads", "safety"]
Support = Literal["yes", "no", "unsure", "untestable", "unmeasured"]
ClaimOutcome = Literal["reproduced", "not reproduced", "mixed", "not testable here", "not measured"]
OUTCOMES: tuple[ClaimOutcome, ...] = ("reproduced", "not reproduced", "mixed", "not testable here", "not measured")
Figures = Mapping[str, Any]
T = TypeVar("T")

# What the first words of a RESULT.json's field say about its kind.
_SIGNS: tuple[tuple[str, str, StudyKind], ...] = (
    ("what", "emergent-misalignment direction study", "direction"),
    ("what", "ridge transfer of misalignment directions", "transfer"),
    ("format", "awry-heads/1", "heads"),
    ("format", "awry-safety-heads/1", "safety"),
)


@dataclass(frozen=True)
class Result:
    """One study's RESULT.json; `name` is its folder's."""

    name: str
    kind: StudyKind
    path: Path
    data: Figures

    @property
    def command(self) -> str | None:
        return self.data.get("command") or None

    @property
    def models(self) -> list[str]:
        """The models measured, by the name that the study gives them."""
        if self.kind == "direction":
            models = [arm["model"] for arm in self.data["identities"].values()]
        elif self.kind == "transfer":
            models = [subject["identity"]["model"] for subject in self.data["subjects"]]
        else:
            models = [self.data["model"]["model"]]
        return list(dict.fromkeys(models))

    @property
    def synthetic(self) -> bool:
        """Planted organisms say that tools work, nothing else (`docs/organisms.md`)."""
        return bool(self.data.get("notes")) or any(name.startswith("planted") for name in self.models)

    @property
    def label(self) -> str:
        """Its name, for tables; links to its part of the page."""
        return f"[{self.name}](#{self.name})" + (" (synthetic)" if self.synthetic else "")


@dataclass(frozen=True)
class Finding:
    """What one result says of a claim, and the figures that say so."""

    support: Support
    words: str


@dataclass(frozen=True)
class Rule:
    """`when` ends the sentence "reproduced when ..."; `apply` answers for each result, under its label."""

    when: str
    apply: Callable[[Sequence[Result]], list[tuple[str, Finding]]]


def each(judge: Callable[[Figures], Finding]) -> Callable[[Sequence[Result]], list[tuple[str, Finding]]]:
    """A rule that looks at one result at a time."""
    return lambda results: [(r.label, whole(r, judge)) for r in results]


def whole(result: Result, use: Callable[[Figures], T]) -> T:
    """What `use` makes of a result's data. DataError, with the file's name, where the data lacks what it needs."""
    try:
        return use(result.data)
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else f"does not fit ({type(error).__name__}: {error})"
        raise DataError(f"{result.path}: as a {result.kind} study it {lacks}; run the study again") from error


def decide(seen: Sequence[Finding]) -> ClaimOutcome:
    """One outcome of what all results say."""
    answers = {s.support for s in seen}
    decisive = answers & {"yes", "no", "unsure"}
    if decisive == {"yes"}:
        return "reproduced"
    if decisive == {"no"}:
        return "not reproduced"
    if decisive:
        return "mixed"
    return "not testable here" if "untestable" in answers else "not measured"


def read_results(studies: Path) -> list[Result]:
    """All results below a folder of studies, by name. DataError names what cannot be read."""
    if not studies.is_dir():
        raise DataError(f"studies: {studies} is no folder")
    return [_read(path) for path in sorted(studies.glob("*/RESULT.json"))]


def _read(path: Path) -> Result:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({type(error).__name__}); run the study again") from error
    if isinstance(data, dict):
        for field, start, kind in _SIGNS:
            if str(data.get(field, "")).startswith(start):
                result = Result(path.parent.name, kind, path, data)
                _check(result)
                return result
    raise DataError(f"{path}: neither its `what` nor its `format` is that of a study known here")


def _check(result: Result) -> None:
    whole(result, lambda _: result.models)


def interval(figure: Figures) -> Interval:
    """A figure of a RESULT.json."""
    return Interval(**{key: figure[key] for key in ("value", "low", "high", "n")})


def share(figure: Figures) -> str:
    """A rate with its interval and what it was counted on."""
    return f"{interval(figure)} (n = {figure['n']})"
