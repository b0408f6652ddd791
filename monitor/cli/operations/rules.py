"""`awry rules`: write alert rules, try them on stored scores, and know beforehand what they cost."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from monitor.cli import options as o
from monitor.cli.inputs import duration_of, opened_by
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from alerts.rules.model import Rules
    from monitor.cli.render.rules import Cascade

commands = Commands("Alert rules: check a file, try it on stored scores, budget its alerts.")


@commands.command()
def check(file: o.RulesPath, as_json: o.Json = False) -> None:
    """Say whether a rules file can be used: every mistake with its line and field."""
    from datetime import UTC, datetime

    from alerts.rules.exceptions import described, warnings
    from alerts.rules.file import load_rules
    from monitor.cli.render.rules import print_exceptions, print_rules

    rules, now = load_rules(file), datetime.now(UTC)
    listed = [
        {
            "name": rule.name,
            "kind": _kind(rules, rule.name),
            "shadow": bool(rule.shadow),
            "id": rule.id,
            "tags": list(rule.tags),
            "references": list(rule.references),
        }
        for rule in rules.all
    ]
    exceptions = described(rules.exception, now)
    if as_json:
        print_json([*listed, *({"kind": "exception", **each} for each in exceptions)])
    else:
        print_rules(listed)
        print_exceptions(exceptions)
    for line in warnings(rules.exception, now):
        say(line)
    also = f" and {len(exceptions)} exceptions" if exceptions else ""
    say(f"{file}: {len(listed)} rules{also}, no mistakes")
    if not listed:
        say("without rules nobody is notified; the built-in ones count where no rules_file is set")
    elif all(each["shadow"] for each in listed):
        say("all of them are in shadow: nobody is notified")


@commands.command("test")
def backtest(
    since: o.Since = "24h",
    rules_file: o.RulesFile = None,
    as_json: o.Json = False,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Run stored scores through rules: how many notifications there would have been. Changes and sends nothing."""
    from alerts.rules.backtest import backtest as run_backtest
    from monitor.cli.render.rules import backtest_document, print_backtest
    from monitor.service import bootstrap
    from monitor.settings import load_settings

    back = duration_of("since", since)
    if not back:
        raise SettingsError("since: nothing was stored since now; write for example 24h")
    settings = load_settings(database_url=database_url, state_dir=state_dir, rules_file=rules_file)
    rules = bootstrap.load_rules(settings)
    with opened_by(settings) as engine:
        number, results, left_out = run_backtest(engine, rules, back, timedelta(seconds=settings.rules_every_seconds))
    not_tried = [rule.name for rule in rules.monitor if rule.check != "tail_drift"]
    if as_json:
        print_json(backtest_document(results, back) | {"scores": number, "left_out": left_out, "not_tried": not_tried})
        return
    print_backtest(results, back)
    say(f"{number} scores of the last {since}; no alert was live at first, and nobody acknowledged any")
    if left_out:
        say(f"{left_out} scores of other cards left out: of each probe the card counts that scored last")
    if not_tried:
        say(f"not tried, since the tables do not hold what they looked at: {', '.join(not_tried)}")


@commands.command()
def budget(
    prevalence: o.Prevalence = None,
    tpr: o.Tpr = None,
    fpr: o.Fpr = None,
    per_day: o.PerDay = None,
    precision: o.Precision = 0.5,
    judged: o.Judged = None,
    as_json: o.Json = False,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Alerts a million messages, and how many of them are right, for a prevalence, TPR and FPR (Bayes); or what a judge
    of uncertain messages saves, by what it said so far."""
    from alerts.rules.budget import budget as budget_of
    from alerts.rules.budget import fpr_for
    from monitor.cli.render.rules import cascade_document, print_budget, print_cascade

    cascade = _cascade(judged, database_url, state_dir) if judged is not None else None
    if cascade is not None and prevalence is None and tpr is None and fpr is None:
        if as_json:
            print_json({"cascade": cascade_document(cascade)})
        else:
            print_cascade(cascade)
        return
    if prevalence is None or tpr is None or fpr is None:
        raise SettingsError("prevalence, tpr, fpr: give all three; or --judged 7d for what the judge saved")
    if per_day is not None and not math.isfinite(per_day):
        raise SettingsError("per-day: must be a number of messages")
    try:
        million, needed = budget_of(prevalence, tpr, fpr), fpr_for(precision, prevalence, tpr)
        day = budget_of(prevalence, tpr, fpr, per_day) if per_day is not None else None
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if as_json:
        judged_by = {"cascade": cascade_document(cascade)} if cascade is not None else {}
        print_json({"per_million": million, "per_day": day, "precision": precision, "max_fpr": needed} | judged_by)
        return
    print_budget(million, day, precision, needed)
    if cascade is not None:
        print_cascade(cascade)


def _cascade(judged: str, database_url: str | None, state_dir: Path | None) -> Cascade:
    """What was judged in the time that is given."""
    from monitor.cli.inputs import reading
    from monitor.cli.render.rules import Cascade
    from storage.queries.judged import band_counts, judged_alerts, judged_span

    back = duration_of("judged", judged)
    if not back:
        raise SettingsError("judged: nothing was judged since now; write for example 7d")
    with reading(database_url, state_dir) as connection:
        return Cascade(
            band_counts(connection, back), judged_span(connection, back), judged_alerts(connection, back), judged
        )


def _kind(rules: Rules, name: str) -> str:
    kinds = (("threshold", rules.threshold), ("rate", rules.rate), ("monitor", rules.monitor))
    return next(kind for kind, group in kinds if any(rule.name == name for rule in group))
