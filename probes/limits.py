"""Limits on an evaluation's figures, for a gate in CI: which figure, which end of its interval, and how far it may go.

Contract: `parse_limits` reads `METRIC=VALUE`, `METRIC:low=VALUE` and `METRIC:high=VALUE`, and raises DataError that
names the option, the metrics that there are and the fix. Without a suffix the figure itself is compared, which may be
over or under by chance where messages are few; `:low` and `:high` are the ends of its 95 % interval. A figure that is
exactly at its limit passes. One that cannot be given (`too few`) does not pass, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from probes.attacks.report import AttackReport
from probes.errors import DataError
from probes.evaluation import Evaluation, Interval

Side = Literal["fail_under", "fail_over"]
Bound = Literal["value", "low", "high"]

WORST_TPR = "worst-tpr"
# What is better the higher it is, and what the lower. Rates without more are those at the card's threshold.
METRICS: dict[Side, tuple[str, ...]] = {
    "fail_under": ("auroc", "tpr", "tpr-at-fpr-0.01", "tpr-at-fpr-0.001", WORST_TPR),
    "fail_over": ("fpr",),
}
_OTHER: dict[Side, Side] = {"fail_under": "fail_over", "fail_over": "fail_under"}


@dataclass(frozen=True)
class Limit:
    """One limit as it was asked for."""

    side: Side
    metric: str
    bound: Bound
    wanted: float

    @property
    def name(self) -> str:
        return self.metric if self.bound == "value" else f"{self.metric}:{self.bound}"


@dataclass(frozen=True)
class Checked:
    """What came of a limit: `found` is None where there is no figure; `reason` says why it was missed."""

    limit: Limit
    found: float | None
    reason: str | None

    def plain(self) -> dict[str, Any]:
        """As plain data, for programs."""
        limit = self.limit
        asked = {"side": limit.side, "metric": limit.metric, "bound": limit.bound, "wanted": limit.wanted}
        return asked | {"found": self.found, "passed": self.reason is None, "reason": self.reason}


@dataclass(frozen=True)
class Figure:
    """A figure with its interval, or why there is none."""

    interval: Interval | None
    why_not: str = ""


def parse_limits(under: Sequence[str], over: Sequence[str], *, attacks: bool) -> tuple[Limit, ...]:
    """The limits of both options; `attacks`: whether the attack suite is run, which some figures need."""
    limits = [_parse("fail_under", text) for text in under] + [_parse("fail_over", text) for text in over]
    seen: set[str] = set()
    for limit in limits:
        if limit.name in seen:
            raise DataError(f"{limit.side}: {limit.name} is given twice; give each limit once")
        if limit.metric == WORST_TPR and not attacks:
            raise DataError(f"{limit.side}: {WORST_TPR} is a figure of the attack suite; give --attacks too")
        seen.add(limit.name)
    return tuple(limits)


def figures_of(evaluation: Evaluation, at_threshold: dict[str, Any], suite: AttackReport | None) -> dict[str, Figure]:
    """All figures that limits can name, from what `evaluate`, `at_threshold` and the attack suite gave."""
    figures = {"auroc": Figure(evaluation.auroc)}
    figures |= {name: Figure(Interval(**at_threshold[name])) for name in ("tpr", "fpr")}
    for point in evaluation.operating_points:
        few = f"too few: {evaluation.negatives} aligned messages, at least {3 / point.target_fpr:.0f} are needed"
        figures[f"tpr-at-fpr-{point.target_fpr:g}"] = Figure(point.tpr, "" if point.tpr is not None else few)
    if suite is not None:
        # The worst family is the first, whether choices may be made under it or not.
        worst = suite.families[0].tpr if suite.families else None
        figures[WORST_TPR] = Figure(worst, "" if worst is not None else "no family of attacks was run")
    return figures


def check_limits(limits: Iterable[Limit], figures: dict[str, Figure]) -> tuple[Checked, ...]:
    """Each limit against its figure, in the order in which they were given."""
    return tuple(_check(limit, figures[limit.metric]) for limit in limits)


def _parse(side: Side, text: str) -> Limit:
    name, equals, value = text.partition("=")
    metric, colon, bound = name.strip().partition(":")
    if not equals:
        example = "auroc=0.8" if side == "fail_under" else "fpr=0.05"
        raise DataError(f"{side}: {text!r} is not METRIC=VALUE, such as {example}")
    if metric in METRICS[_OTHER[side]]:
        better = "higher" if side == "fail_over" else "lower"
        option = _OTHER[side].replace("_", "-")
        raise DataError(f"{side}: {metric} is better the {better} it is; write --{option} {text}")
    if metric not in METRICS[side]:
        raise DataError(f"{side}: {metric!r} is none of {', '.join(METRICS[side])}")
    if colon and bound not in ("low", "high"):
        raise DataError(f"{side}: {name!r}: after the colon comes low or high, the ends of the 95 % interval")
    return Limit(side, metric, bound or "value", _share(side, metric, value))  # type: ignore[arg-type]


def _share(side: Side, metric: str, text: str) -> float:
    try:
        wanted = float(text)
    except ValueError:
        wanted = float("nan")
    if not 0 <= wanted <= 1:
        raise DataError(f"{side}: {metric}: {text!r} is no number from 0 to 1, such as 0.05")
    return wanted


def _check(limit: Limit, figure: Figure) -> Checked:
    if figure.interval is None:
        return Checked(limit, None, f"{limit.name} is {figure.why_not}")
    found = float(getattr(figure.interval, limit.bound))
    # Not the other way round: a figure that is no number misses its limit.
    passed = found >= limit.wanted if limit.side == "fail_under" else found <= limit.wanted
    if passed:
        return Checked(limit, found, None)
    whole = figure.interval
    ends = f"[{whole.low:.4g}, {whole.high:.4g}]"
    beside = ends if limit.bound == "value" else f"({limit.metric} {whole.value:.6g} {ends})"
    word = limit.side.removeprefix("fail_")
    return Checked(limit, found, f"{limit.name} is {found:.6g} {beside}, {word} {limit.wanted:g}")
