"""`awry outbox`: what waits to be delivered, what was given up, and what to do about it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from monitor.cli.app import app, say
from monitor.cli.connections import opened

outbox = typer.Typer(
    help="Deliveries: list them, try those again that were given up, test and enable destinations.",
    no_args_is_help=True,
)
app.add_typer(outbox, name="outbox")

Url = Annotated[str | None, typer.Option(help="postgresql://...; default: embedded")]
State = Annotated[Path | None, typer.Option(help="models and the embedded database")]
Name = Annotated[str, typer.Argument(help="the destination's name in the settings")]
Which = Annotated[str | None, typer.Option(help="only this destination")]


@outbox.command("list")
def list_pages(
    state: Annotated[Literal["pending", "delivered", "dead"] | None, typer.Option(help="only these")] = None,
    destination: Which = None,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="at most so many, newest first")] = 50,
    database_url: Url = None,
    state_dir: State = None,
) -> None:
    """List pages, newest first, and what is known of each destination."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from alerts.delivery.admin import pages
    from alerts.text import printable
    from monitor.cli.render.alerts import utc
    from storage.queries.messages import destination_states, outbox_counts

    with opened(database_url, state_dir) as engine, engine.connect() as connection:
        found = pages(connection, state, destination, limit)
        counts, places = outbox_counts(connection), destination_states(connection)
    table = Table(
        "page", "destination", "state", "event", "severity", "alert", "events", "tries", "due", "error", box=None
    )
    for one in found:
        waits = one.state == "pending"
        table.add_row(
            str(one.id)[:8],
            one.destination,
            one.state if one.formed else "waiting",
            one.event,
            one.severity,
            escape(printable(one.dedup_key)),
            str(one.events),
            str(one.attempts),
            utc(one.due_at) if waits else "",
            escape(one.last_error or ""),
        )
    Console().print(table)
    for place in places:
        typer.echo(f"{place['name']}: {_standing(place)}")
    typer.echo("events: " + ", ".join(f"{n} {kind}" for kind, n in counts.items()))


@outbox.command()
def retry(
    page: Annotated[list[str] | None, typer.Argument(help="ids of pages, or their first digits")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="every page that was given up")] = False,
    now: Annotated[bool, typer.Option("--now", help="also those whose turn has not come")] = False,
    destination: Which = None,
    database_url: Url = None,
    state_dir: State = None,
) -> None:
    """Send pages again that were given up, under the ids that they had."""
    from alerts.delivery import admin
    from monitor.errors import SettingsError

    if not page and not dead and not now:
        raise SettingsError("outbox retry: name pages, or say --dead for all that were given up, or --now")
    with opened(database_url, state_dir) as engine, engine.begin() as connection:
        found = [admin.find_page(connection, one) for one in page or ()]
        number = admin.retry(connection, found, destination, everything=now)
    say(f"{number} pages are due now; awry send delivers them")


@outbox.command()
def enable(name: Name, database_url: Url = None, state_dir: State = None) -> None:
    """Send to a destination again whose receiver had said that it is gone."""
    from alerts.delivery import admin
    from monitor.errors import SettingsError

    with opened(database_url, state_dir) as engine, engine.begin() as connection:
        known = admin.enable(connection, name)
    if not known:
        raise SettingsError(f"outbox enable: nothing was ever sent to {name}; awry outbox list names the destinations")
    say(f"{name} is sent to again")


@outbox.command("test")
def try_out(name: Name, state_dir: State = None) -> None:
    """Send one made-up alert to a destination and say what came of it; the database is not touched."""
    from alerts.delivery.channel import make_courier
    from alerts.links import Links
    from alerts.delivery.sample import trial_events
    from alerts.senders.base import DeliveryError
    from monitor.errors import SettingsError
    from monitor.settings import load_settings

    settings = load_settings(state_dir=state_dir)
    found = [one for one in settings.destinations if one.name == name]
    if not found:
        known = ", ".join(one.name for one in settings.destinations)
        raise SettingsError(f"outbox test: there is no destination {name}; there are {known}")
    courier = make_courier(found[0], Links(settings.runbook_url, settings.dashboard_url))
    for event in trial_events(found[0], courier, datetime.now(UTC)):
        try:
            courier.sender.send(event)
        except DeliveryError as error:
            raise SettingsError(f"outbox test: {name} did not take {event.event}: {error}") from None
        say(f"{name} took {event.event}")


def _standing(place: dict[str, Any]) -> str:
    from monitor.cli.render.alerts import utc

    if place["disabled_at"] is not None:
        return f"disabled since {utc(place['disabled_at'])} ({place['last_error']}); awry outbox enable NAME"
    if place["failures"]:
        return f"{place['failures']} failures in a row ({place['last_error']}), next try {utc(place['held_until'])}"
    return "answers"
