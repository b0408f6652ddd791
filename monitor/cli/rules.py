"""`awry rules`: write alert rules, try them on what was stored, and know beforehand what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.app import app, say
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from alerts.rules.model import Rules

Flag = typer.Option
rules = typer.Typer(help="Alert rules: check a file, try it on stored scores, budget its alerts.", no_args_is_help=True)
app.add_typer(rules, name="rules")


@rules.command()
def check(file: Annotated[Path, typer.Argument(help="TOML file of rules")]) -> None:
    """Say whether a rules file can be used: every mistake with its line and field."""
    from alerts.rules.file import load_rules

    found = load_rules(file)
    for rule in found.all:
        typer.echo(f"{_kind(found, rule.name):9} {rule.name}{'  (shadow)' if rule.shadow else ''}")
    say(f"{file}: {len(found.all)} rules, no mistakes")


@rules.command("test")
def rehearse_rules(
    since: Annotated[str, Flag(help="how far back: 24h, 7d, 1d12h")] = "24h",
    file: Annotated[Path | None, Flag("--rules", help="TOML file of rules; default: the rules that are set")] = None,
    database_url: Annotated[str | None, Flag(help="postgresql://...; default: embedded")] = None,
    state_dir: Annotated[Path | None, Flag(help="models and the embedded database")] = None,
) -> None:
    """Run stored scores through rules: how many pages there would have been. Changes and sends nothing."""
    from datetime import timedelta

    from alerts.rules.backtest import rehearse
    from alerts.rules.durations import parse_duration
    from monitor.cli.render.alerts import print_rehearsal
    from monitor.service import bootstrap
    from monitor.settings import load_settings

    try:
        back = parse_duration(since)
    except ValueError as error:
        raise SettingsError(f"since: {error}") from None
    if not back:
        raise SettingsError("since: nothing was stored since now; write for example 24h")
    settings = load_settings(database_url=database_url, state_dir=state_dir, rules_file=file)
    found = bootstrap.load_rules(settings)
    engine = bootstrap.open_database(settings)
    number, done = rehearse(engine, found, back, timedelta(seconds=settings.rules_every_seconds))
    engine.dispose()
    print_rehearsal(done, back)
    say(f"{number} scores of the last {since}; no alert was live at first, and nobody acknowledged any")
    if found.monitor:
        names = ", ".join(rule.name for rule in found.monitor)
        say(f"not tried, since the tables do not hold what they looked at: {names}")


@rules.command()
def budget(
    prevalence: Annotated[float, Flag(help="share of messages that are bad: 1e-4")],
    tpr: Annotated[float, Flag(help="share of bad messages that the threshold flags")],
    fpr: Annotated[float, Flag(help="share of good messages that it flags")],
    per_day: Annotated[float | None, Flag(min=0, help="messages a day")] = None,
    precision: Annotated[float, Flag(help="say the FPR that this share of right alerts needs")] = 0.5,
) -> None:
    """Alerts a million messages, and how many of them are right, for a prevalence, TPR and FPR (Bayes)."""
    from alerts.rules.budget import budget as of
    from alerts.rules.budget import fpr_for

    try:
        million, needed = of(prevalence, tpr, fpr), fpr_for(precision, prevalence, tpr)
        day = of(prevalence, tpr, fpr, per_day) if per_day is not None else None
    except ValueError as error:
        raise SettingsError(str(error)) from None
    typer.echo(
        f"of a million messages    {million.alerts:,.1f} are flagged, {million.true_alerts:,.1f} of them rightly"
    )
    right = "nothing is flagged" if million.precision is None else f"{million.precision:.2%} of the flagged are bad"
    typer.echo(f"precision                {right}")
    typer.echo(f"missed                   {million.missed:,.1f} bad messages a million")
    if day is not None:
        typer.echo(f"a day                    {day.alerts:,.1f} flagged, {day.true_alerts:,.1f} of them rightly")
    if needed is not None:
        typer.echo(f"for {precision:.0%} precision        an FPR of at most {needed:.3g} at this TPR")


def _kind(found: Rules, name: str) -> str:
    kinds = (("threshold", found.threshold), ("rate", found.rate), ("monitor", found.monitor))
    return next(kind for kind, group in kinds if any(rule.name == name for rule in group))
