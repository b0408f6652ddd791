"""Rules, a backtest of them and a budget, as text and as JSON documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from monitor.cli.render.tables import print_line, print_table

if TYPE_CHECKING:
    from alerts.rules.budget import Budget, Saving
    from alerts.rules.simulation import BacktestResult
    from storage.queries.judged import BandCounts, JudgedAlerts, Span


def print_rules(rules: Iterable[Mapping[str, Any]]) -> None:
    """One line a rule."""
    for rule in rules:
        tags = f"  {', '.join(rule['tags'])}" if rule["tags"] else ""
        print_line(f"{rule['kind']:9} {rule['name']}{'  (shadow)' if rule['shadow'] else ''}{tags}")


def print_exceptions(exceptions: Iterable[Mapping[str, Any]]) -> None:
    """One line an exception."""
    for each in exceptions:
        matched = ", ".join(each["matchers"])
        ends = f"{each['state']}, until {each['until']}"
        print_line(f"exception {{{matched}}}  {ends}, {each['owner']}: {each['reason']}")


def backtest_document(results: Sequence[BacktestResult], since: timedelta) -> dict[str, Any]:
    """What `awry rules test --json` prints, without what the command knows."""
    days = since.total_seconds() / 86400
    return {
        "days": days,
        "rules": [
            {
                "name": result.name,
                "kind": result.kind,
                "shadow": result.shadow,
                "flagged": result.messages,
                "alerts": result.alerts,
                "resolved": result.resolved,
                "notifications": result.notifications,
                "notifications_per_day": result.notifications / days,
                "busiest": dict(result.keys.most_common(2)),
                "shadow_probes_would_notify": result.would_notify,
            }
            for result in results
        ],
    }


def print_backtest(results: Sequence[BacktestResult], since: timedelta) -> None:
    """One line a rule, and the sum of those that are live."""
    days = since.total_seconds() / 86400
    rows = [
        (
            result.name,
            result.kind,
            "shadow" if result.shadow else "live",
            result.messages,
            result.alerts,
            result.resolved,
            result.notifications,
            f"{result.notifications / days:.1f}",
            ", ".join(f"{key} ({n})" for key, n in result.keys.most_common(2)),
            f"{result.would_notify} would notify" if result.would_notify else "",
        )
        for result in results
    ]
    live = sum(result.notifications for result in results if not result.shadow)
    columns = ("rule", "kind", "mode", "flagged", "alerts", "resolved", "notifications", "a day", "busiest")
    print_table(
        (*columns, "shadow probes"),
        [*rows, ("all live rules", "", "", "", "", "", live, f"{live / days:.1f}", "", "")],
        note="notifications: alerts opened, reopened or of increased severity, sent to one destination",
    )


def print_budget(million: Budget, day: Budget | None, precision: float, needed: float | None) -> None:
    """What a threshold costs, line by line."""
    right = "nothing is flagged" if million.precision is None else f"{million.precision:.2%} of the flagged are bad"
    lines = [
        f"of a million messages    {million.alerts:,.1f} are flagged, {million.true_alerts:,.1f} of them rightly",
        f"precision                {right}",
        f"missed                   {million.missed:,.1f} bad messages a million",
    ]
    if day is not None:
        lines.append(f"a day                    {day.alerts:,.1f} flagged, {day.true_alerts:,.1f} of them rightly")
    if needed is not None:
        lines.append(f"for {precision:.0%} precision        an FPR of at most {needed:.3g} at this TPR")
    for line in lines:
        print_line(line)


# Fewer days would make a rate of a day out of minutes.
_LEAST_DAYS = 1 / 24


@dataclass(frozen=True)
class Cascade:
    """What a judge said of stored messages: counts by probe, the time they are of, and the alerts of that time."""

    counts: Sequence[BandCounts]
    span: Span
    alerts: JudgedAlerts
    since: str

    @property
    def days(self) -> float:
        return max(_LEAST_DAYS, self.span.days)

    def saving(self, counts: BandCounts) -> Saving:
        """By day."""
        from alerts.rules.budget import Band, saving

        unjudged = counts.failed + counts.not_asked + counts.waiting
        return saving(
            Band(
                counts.flagged_harmful,
                counts.flagged_harmless,
                counts.passed_harmful,
                counts.passed_harmless,
                counts.flagged_unjudged,
                unjudged - counts.flagged_unjudged,
            ),
            self.days,
        )


def cascade_document(cascade: Cascade) -> dict[str, Any]:
    """What `awry rules budget --judged` prints as JSON."""
    probes = []
    for counts in cascade.counts:
        found = cascade.saving(counts)
        scored, flagged = cascade.span.scores.get(counts.probe, (0, 0))
        probes.append(
            asdict(counts)
            | {
                "scored_per_day": scored / cascade.days,
                "flagged_per_day": flagged / cascade.days,
                "band_per_day": found.band,
                "judged_per_day": found.judged,
                "fewer_per_day": found.fewer,
                "more_per_day": found.more,
                "fewer_per_day_if_all_were_judged": found.fewer_if_all,
                "more_per_day_if_all_were_judged": found.more_if_all,
                "precision": found.precision.value,
                "precision_interval": found.precision.interval,
            }
        )
    return {"days": cascade.days, "probes": probes, "alerts": asdict(cascade.alerts)}


def print_cascade(cascade: Cascade) -> None:
    """One line a probe, then the alerts."""
    if not cascade.counts:
        print_line(f"no message of the last {cascade.since} was in a judge's band; see docs/judge.md")
        return
    rows = []
    for counts in cascade.counts:
        found = cascade.saving(counts)
        _, flagged = cascade.span.scores.get(counts.probe, (0, 0))
        low, high = found.precision.interval
        right = found.precision.value
        rows.append(
            (
                counts.probe,
                f"{flagged / cascade.days:,.1f}",
                f"{found.band:,.1f}",
                f"{found.judged:,.1f}",
                f"{counts.failed}, {counts.not_asked}",
                "-" if right is None else f"{right:.0%} ({low:.0%} to {high:.0%} of {found.precision.n})",
                _a_day(found.fewer, found.fewer_if_all),
                _a_day(found.more, found.more_if_all),
            )
        )
    columns = ("probe", "flagged a day", "in the band", "judged", "failed, not asked", "precision in the band")
    print_table(
        (*columns, "fewer a day", "more a day"),
        rows,
        note=f"of {cascade.days:.2g} days; precision: flagged messages that the judge calls harmful; fewer: flagged "
        "ones that it calls harmless; more: those that the probe missed; in brackets if all of the band were judged",
    )
    alerts = cascade.alerts
    for line in (
        f"alerts opened            {alerts.opened:,}",
        f"harmless by the judge    {alerts.harmless:,} have no other message; it resolved {alerts.resolved:,} (rules "
        f"with judge_resolves), {alerts.unsent:,} of them before anybody was notified",
        f"opened by the judge      {alerts.raised:,} have no message that their probe flagged",
    ):
        print_line(line)


def _a_day(measured: float, if_all: float | None) -> str:
    more = "" if if_all is None or abs(if_all - measured) < 0.05 else f" ({if_all:,.1f})"
    return f"{measured:,.1f}{more}"
