"""`awry outbox`: what waits to be delivered, what was given up, and what to do about it."""

from __future__ import annotations

from datetime import UTC, datetime

from monitor.cli import options as o
from monitor.cli.inputs import reading, writing
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands
from monitor.errors import SettingsError

commands = Commands("Deliveries: list them, try those again that were given up, test and enable destinations.")


@commands.command("list")
def list_notifications(
    state: o.DeliveryFilter = None,
    destination: o.Destination = None,
    limit: o.Limit = 50,
    as_json: o.Json = False,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """List notifications, newest first, and what is known of each destination."""
    from alerts.delivery.admin import list_outbox
    from monitor.cli.render.outbox import outbox_document, print_outbox
    from storage.queries.outbox import destination_states, outbox_counts

    with reading(database_url, state_dir) as connection:
        document = outbox_document(
            list_outbox(connection, state, destination, limit),
            destination_states(connection),
            outbox_counts(connection),
        )
    (print_json if as_json else print_outbox)(document)


@commands.command()
def retry(
    notification: o.NotificationIds = None,
    dead: o.Dead = False,
    now: o.Now = False,
    destination: o.Destination = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Send notifications again that were given up, under the ids that they had."""
    from alerts.delivery import admin

    if not notification and not dead and not now:
        raise SettingsError("outbox retry: name notifications, or say --dead for all that were given up, or --now")
    with writing(database_url, state_dir) as connection:
        ids = [admin.find_notification(connection, text) for text in notification or ()]
        number = admin.retry(connection, ids, destination, everything=now)
    say(f"{number} notifications are due now; awry send delivers them")


@commands.command()
def enable(name: o.DestinationName, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None) -> None:
    """Send to a destination again whose receiver had said that it is gone."""
    from alerts.delivery import admin

    with writing(database_url, state_dir) as connection:
        known = admin.enable(connection, name)
    if not known:
        raise SettingsError(f"outbox enable: nothing was ever sent to {name}; awry outbox list names the destinations")
    say(f"{name} is sent to again")


@commands.command("test")
def send_sample(name: o.DestinationName, state_dir: o.StateDir = None) -> None:
    """Send one made-up alert to a destination and say what came of it; the database is not touched."""
    from alerts.delivery.channel import make_channel
    from alerts.delivery.sample import sample_notifications
    from alerts.links import Links
    from alerts.senders.base import DeliveryError
    from monitor.settings import load_settings

    settings = load_settings(state_dir=state_dir)
    by_name = {destination.name: destination for destination in settings.destinations}
    if name not in by_name:
        raise SettingsError(f"outbox test: there is no destination {name}; there are {', '.join(by_name)}")
    channel = make_channel(by_name[name], Links(settings.runbook_url, settings.dashboard_url))
    for sample in sample_notifications(by_name[name], channel, datetime.now(UTC)):
        try:
            channel.sender.send(sample)
        except DeliveryError as error:
            raise SettingsError(f"outbox test: {name} did not take {sample.event}: {error}") from None
        say(f"{name} took {sample.event}")
