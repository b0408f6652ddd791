"""Rules, a backtest of them and a budget, as text and as JSON documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from monitor.cli.render.tables import print_line, print_table

if TYPE_CHECKING:
    from alerts.rules.backtest import BacktestResult
    from alerts.rules.budget import Budget


def print_rules(rules: Iterable[Mapping[str, Any]]) -> None:
    """One line a rule."""
    for rule in rules:
        print_line(f"{rule['kind']:9} {rule['name']}{'  (shadow)' if rule['shadow'] else ''}")


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
