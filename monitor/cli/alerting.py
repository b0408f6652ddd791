"""`awry alerts`: what is wrong, who has it in hand, and whether it was right."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alerts.text import printable
from monitor.cli.app import app, say
from monitor.cli.connections import opened
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from alerts.lifecycle.audit import Actor

Flag = typer.Option
alerts = typer.Typer(help="Alerts: list, look at, acknowledge, silence, resolve, judge. Alone it lists them.")
app.add_typer(alerts, name="alerts")

Url = Annotated[str | None, Flag(help="postgresql://...; default: embedded")]
State = Annotated[Path | None, Flag(help="models and the embedded database")]
Which = Annotated[list[str], typer.Argument(help="ids, their first digits, or dedup keys")]
One = Annotated[str, typer.Argument(help="id, its first digits, or the dedup key")]
As = Annotated[str | None, Flag("--as", help="who does it, for the record; default: you")]


class States(StrEnum):
    open = "open"
    acknowledged = "acknowledged"
    silenced = "silenced"
    resolved = "resolved"


class Verdicts(StrEnum):
    true = "true"
    false = "false"
    authorised_test = "authorised_test"


class Severities(StrEnum):
    warning = "warning"
    error = "error"
    critical = "critical"


OfState = Annotated[States | None, Flag(help="open, acknowledged, silenced or resolved")]


@alerts.callback(invoke_without_command=True)
def _alone(context: typer.Context, state: OfState = None, database_url: Url = None, state_dir: State = None) -> None:
    if context.invoked_subcommand is None:
        list_alerts(state, database_url=database_url, state_dir=state_dir)


@alerts.command("list")
def list_alerts(
    state: OfState = None,
    rule: Annotated[str | None, Flag(help="of this rule")] = None,
    probe: Annotated[str | None, Flag(help="of this probe")] = None,
    tenant: Annotated[str | None, Flag(help="of this tenant")] = None,
    limit: Annotated[int, Flag(min=1, help="how many, at most")] = 50,
    as_json: Annotated[bool, Flag("--json", help="one JSON object a line")] = False,
    database_url: Url = None,
    state_dir: State = None,
) -> None:
    """List alerts, newest first."""
    from monitor.cli.render.alerts import print_alerts
    from storage.queries.messages import list_alerts as find
    from storage.queries.messages import outbox_counts

    with _connected(database_url, state_dir) as connection:
        rows = find(connection, state, limit, rule=rule, probe=probe, tenant=tenant)
        deliveries = outbox_counts(connection)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row, default=str))
        return
    print_alerts(rows)
    typer.echo("deliveries: " + ", ".join(f"{n} {kind}" for kind, n in deliveries.items()))


@alerts.command()
def show(alert: One, database_url: Url = None, state_dir: State = None) -> None:
    """Everything about one alert: its messages with the highest scores, its history, its deliveries."""
    from alerts.lifecycle.actions import find_alert
    from monitor.cli.render.alerts import print_alert

    with _connected(database_url, state_dir) as connection:
        print_alert(connection, find_alert(connection, alert))


@alerts.command()
def ack(alert: Which, who: As = None, database_url: Url = None, state_dir: State = None) -> None:
    """Say that somebody has it in hand: nothing more is sent, until it gets graver."""
    from alerts.lifecycle.actions import acknowledge

    _each(alert, acknowledge, who, database_url, state_dir)


@alerts.command()
def resolve(alert: Which, who: As = None, database_url: Url = None, state_dir: State = None) -> None:
    """Say that it is over; who was told of the alert is told."""
    from alerts.lifecycle.actions import resolve as action

    _each(alert, action, who, database_url, state_dir)


@alerts.command()
def reopen(alert: Which, who: As = None, database_url: Url = None, state_dir: State = None) -> None:
    """Say that it was not over; a verdict that it had is dropped."""
    from alerts.lifecycle.actions import reopen as action

    _each(alert, action, who, database_url, state_dir)


@alerts.command()
def verdict(
    alert: One,
    verdict: Annotated[Verdicts, typer.Argument(help="true, false, or authorised_test (real, and allowed)")],
    note: Annotated[str | None, Flag(help="why, for the record")] = None,
    who: As = None,
    database_url: Url = None,
    state_dir: State = None,
) -> None:
    """Judge an alert by the messages that it holds now: feeds the measured precision and awry calibrate."""
    from alerts.lifecycle.actions import find_alert, judge

    with _writing(database_url, state_dir) as connection:
        found = find_alert(connection, alert)
        row = judge(connection, found, verdict.value, actor_of(who), note)
    say(f"{printable(row.dedup_key)} judged {row.verdict}")


@alerts.command()
def silence(
    alert: Annotated[str | None, typer.Argument(help="one alert; else give matchers")] = None,
    lasting: Annotated[str, Flag("--for", help="how long: 30m, 2h, 1d12h")] = "1h",
    rule: Annotated[str | None, Flag(help="rules that match this name or pattern with *")] = None,
    probe: Annotated[str | None, Flag(help="probes that match")] = None,
    tenant: Annotated[str | None, Flag(help="tenants that match")] = None,
    model: Annotated[str | None, Flag(help="models that match")] = None,
    up_to: Annotated[
        Severities | None,
        Flag(help="with matchers: graver alerts are not silenced  [default: critical]", show_default=False),
    ] = None,
    comment: Annotated[str, Flag(help="why, for the record")] = "",
    who: As = None,
    database_url: Url = None,
    state_dir: State = None,
) -> None:
    """Send nothing for a while about one alert, or about all that match. What gets graver meanwhile is sent."""
    from alerts.lifecycle import actions
    from alerts.rules.durations import parse_duration

    matchers = {"rule": rule, "probe": probe, "tenant": tenant, "model": model}
    given = {name: pattern for name, pattern in matchers.items() if pattern is not None}
    if (alert is None) == (not given):
        raise SettingsError("silence: give an alert, or some of --rule, --probe, --tenant, --model")
    if alert is not None and up_to is not None:
        raise SettingsError("silence: --up-to goes with matchers; an alert is silenced up to the severity that it has")
    try:
        duration = parse_duration(lasting)
    except ValueError as error:
        raise SettingsError(f"for: {error}") from None
    with _writing(database_url, state_dir) as connection:
        if alert is not None:
            found = actions.find_alert(connection, alert)
            made = actions.silence_alert(connection, found, duration, actor_of(who), comment)
        else:
            most = up_to or Severities.critical
            made = actions.silence(connection, given, duration, actor_of(who), comment, most.value)
    say(f"silence {made.id} until {made.ends_at:%Y-%m-%d %H:%M:%S %Z} covers {len(made.alerts)} live alerts")


@alerts.command()
def silences(database_url: Url = None, state_dir: State = None) -> None:
    """List the silences that hold."""
    from monitor.cli.render.alerts import print_silences
    from storage.queries.alerts import active_silences

    with _connected(database_url, state_dir) as connection:
        print_silences(active_silences(connection))


@alerts.command()
def unsilence(
    silence: Annotated[str, typer.Argument(help="id of the silence, or its first digits")],
    who: As = None,
    database_url: Url = None,
    state_dir: State = None,
) -> None:
    """End a silence early; what went on behind it is told by awry send."""
    from alerts.lifecycle.actions import end_silence, find_silence

    with _writing(database_url, state_dir) as connection:
        found = find_silence(connection, silence)
        back = end_silence(connection, found, actor_of(who))
    say(f"silence {found} is over; {len(back)} alerts speak again")


@alerts.command()
def precision(database_url: Url = None, state_dir: State = None) -> None:
    """How many of the judged alerts were right, by rule and probe, with intervals."""
    from monitor.cli.render.alerts import print_precision
    from storage.queries.alerts import verdict_counts

    with _connected(database_url, state_dir) as connection:
        print_precision(verdict_counts(connection))


def _each(
    written: list[str],
    action: Callable[[Connection, Any, Actor], Any],
    who: str | None,
    database_url: str | None,
    state_dir: Path | None,
) -> None:
    """One after the other: the first that cannot be changed ends it."""
    from alerts.lifecycle.actions import find_alert

    with _connected(database_url, state_dir) as connection:
        found = [find_alert(connection, one) for one in written]
        connection.rollback()
        for alert_id in dict.fromkeys(found):
            with connection.begin():
                row = action(connection, alert_id, actor_of(who))
            say(f"{printable(row.dedup_key)} is {row.state}")


def actor_of(who: str | None) -> Actor:
    """Who types it: the name given, else the user's."""
    from alerts.lifecycle.audit import Actor

    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    return Actor(who or user, "cli", socket.gethostname())


@contextmanager
def _connected(database_url: str | None, state_dir: Path | None) -> Iterator[Connection]:
    with opened(database_url, state_dir) as engine, engine.connect() as connection:
        yield connection


@contextmanager
def _writing(database_url: str | None, state_dir: Path | None) -> Iterator[Connection]:
    with _connected(database_url, state_dir) as connection, connection.begin():
        yield connection
