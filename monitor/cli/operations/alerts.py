"""`awry alerts`: list, acknowledge, silence, resolve and judge alerts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alerts.text import printable
from monitor.cli import options as o
from monitor.cli.inputs import actor_of, duration_of, filled, reading, writing
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from alerts.lifecycle.audit import Actor

commands = Commands(
    "Alerts: list, look at, acknowledge, silence, resolve, judge. Alone it lists them.", invoke_without_command=True
)


@commands.callback()
def _alone(
    context: typer.Context,
    state: o.AlertStateFilter = None,
    as_json: o.Json = False,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    if context.invoked_subcommand is not None:
        if state is not None or as_json or database_url is not None or state_dir is not None:
            raise SettingsError("alerts: give options after the subcommand: awry alerts list --json")
    else:
        list_alerts(state, as_json=as_json, database_url=database_url, state_dir=state_dir)


@commands.command("list")
def list_alerts(
    state: o.AlertStateFilter = None,
    rule: o.Rule = None,
    probe: o.ProbeFilter = None,
    tenant: o.Tenant = None,
    limit: o.Limit = 50,
    as_json: o.Json = False,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """List alerts, newest first, and count what is sent about them. With --json one object a line."""
    from monitor.cli.render.alerts import print_alerts
    from storage.queries.alerts import list_alerts as find_alerts
    from storage.queries.outbox import outbox_counts

    filled(rule=rule, probe=probe, tenant=tenant)
    with reading(database_url, state_dir) as connection:
        rows = find_alerts(connection, state, limit, rule=rule, probe=probe, tenant=tenant)
        deliveries = outbox_counts(connection)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row, default=str))
        return
    print_alerts(rows)
    typer.echo("deliveries: " + ", ".join(f"{n} {kind}" for kind, n in deliveries.items()))


@commands.command()
def show(
    alert: o.AlertId, as_json: o.Json = False, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None
) -> None:
    """Everything about one alert: its messages with the highest scores, its history, its deliveries."""
    from alerts.lifecycle.actions import find_alert
    from monitor.cli.render.alerts import alert_details, print_alert

    with reading(database_url, state_dir) as connection:
        details = alert_details(connection, find_alert(connection, alert))
    (print_json if as_json else print_alert)(details)


@commands.command()
def ack(
    alert: o.AlertIds, actor: o.Actor = None, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None
) -> None:
    """Acknowledge: no further notifications until the severity increases."""
    from alerts.lifecycle.actions import acknowledge

    _change_each(alert, acknowledge, actor, database_url, state_dir)


@commands.command()
def resolve(
    alert: o.AlertIds, actor: o.Actor = None, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None
) -> None:
    """Resolve: it is over. Whoever was notified of the alert is notified."""
    from alerts.lifecycle.actions import resolve as action

    _change_each(alert, action, actor, database_url, state_dir)


@commands.command()
def reopen(
    alert: o.AlertIds, actor: o.Actor = None, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None
) -> None:
    """Reopen: it was not over. A verdict that it had is dropped."""
    from alerts.lifecycle.actions import reopen as action

    _change_each(alert, action, actor, database_url, state_dir)


@commands.command()
def verdict(
    alert: o.AlertId,
    verdict: o.GivenVerdict,
    note: o.Note = None,
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Judge an alert by the messages that it has now: feeds the measured precision and awry calibrate."""
    from alerts.lifecycle.actions import find_alert, judge

    with writing(database_url, state_dir) as connection:
        alert_id = find_alert(connection, alert)
        row = judge(connection, alert_id, verdict, actor_of(actor), note)
    say(f"{printable(row.dedup_key)} judged {row.verdict}")


@commands.command()
def silence(
    alert: o.SilencedAlert = None,
    lasting: o.For = "1h",
    rule: o.Rule = None,
    probe: o.ProbeFilter = None,
    tenant: o.Tenant = None,
    model: o.ModelFilter = None,
    up_to: o.UpTo = None,
    comment: o.Comment = "",
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Send nothing for a while about one alert, or about all that match. An increase in severity is sent."""
    from alerts.lifecycle import actions

    named = {"rule": rule, "probe": probe, "tenant": tenant, "model": model}
    filled(**named)
    matchers = {name: pattern for name, pattern in named.items() if pattern is not None}
    if (alert is None) == (not matchers):
        raise SettingsError("silence: give an alert, or some of --rule, --probe, --tenant, --model")
    if alert is not None and up_to is not None:
        raise SettingsError("silence: --up-to goes with matchers; an alert is silenced up to the severity that it has")
    duration = duration_of("for", lasting)
    with writing(database_url, state_dir) as connection:
        if alert is not None:
            alert_id = actions.find_alert(connection, alert)
            silenced = actions.silence_alert(connection, alert_id, duration, actor_of(actor), comment)
        else:
            most = up_to or "critical"
            silenced = actions.silence(connection, matchers, duration, actor_of(actor), comment, most)
    say(
        f"silence {silenced.id} until {silenced.ends_at:%Y-%m-%d %H:%M:%S %Z} covers {len(silenced.alerts)} live alerts"
    )


@commands.command()
def silences(as_json: o.Json = False, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None) -> None:
    """List the silences that are active."""
    from monitor.cli.render.alerts import print_silences
    from storage.queries.alerts import active_silences

    with reading(database_url, state_dir) as connection:
        rows = active_silences(connection)
    (print_json if as_json else print_silences)(rows)


@commands.command()
def unsilence(
    silence: o.SilenceId, actor: o.Actor = None, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None
) -> None:
    """End a silence early: awry send notifies of what happened behind it."""
    from alerts.lifecycle.actions import end_silence, find_silence

    with writing(database_url, state_dir) as connection:
        silence_id = find_silence(connection, silence)
        back = end_silence(connection, silence_id, actor_of(actor))
    say(f"silence {silence_id} is over; {len(back)} alerts are no longer silenced")


@commands.command()
def precision(as_json: o.Json = False, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None) -> None:
    """How many of the judged alerts were right, by rule and probe, with intervals."""
    from monitor.cli.render.alerts import precision_rows, print_precision
    from storage.queries.alerts import verdict_counts

    with reading(database_url, state_dir) as connection:
        rows = precision_rows(verdict_counts(connection))
    (print_json if as_json else print_precision)(rows)


def _change_each(
    written: list[str],
    action: Callable[[Connection, Any, Actor], Any],
    name: str | None,
    database_url: str | None,
    state_dir: Path | None,
) -> None:
    """One after the other, each in a transaction: the first that cannot be changed ends it."""
    from alerts.lifecycle.actions import find_alert

    with reading(database_url, state_dir) as connection:
        alert_ids = [find_alert(connection, text) for text in written]
        connection.rollback()
        for alert_id in dict.fromkeys(alert_ids):
            with connection.begin():
                row = action(connection, alert_id, actor_of(name))
            say(f"{printable(row.dedup_key)} is {row.state}")
