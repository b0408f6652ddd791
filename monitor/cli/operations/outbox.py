"""`awry outbox`: what waits to be delivered, what was given up, and what to do about it."""

from __future__ import annotations

from datetime import UTC, datetime

from monitor.cli import options as o
from monitor.cli.inputs import actor_of, filled, reading, writing
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands
from monitor.errors import SettingsError

commands = Commands("Deliveries: list them, retry those given up, say where alerts go, test and enable destinations.")


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

    filled(destination=destination)
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
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Send notifications again that were given up, under the ids that they had."""
    from alerts.delivery import admin
    from alerts.lifecycle.audit import write_audit_row

    if not notification and not dead and not now:
        raise SettingsError("outbox retry: name notifications, or say --dead for all that were given up, or --now")
    with writing(database_url, state_dir) as connection:
        ids = [admin.find_notification(connection, text) for text in notification or ()]
        number = admin.retry(connection, ids, destination, everything=now)
        asked = {"ids": [str(each) for each in ids], "destination": destination, "waiting_too": now}
        write_audit_row(connection, actor_of(actor), "outbox.retry", after=asked | {"notifications": number})
    say(f"{number} notifications are due now; awry send delivers them")


@commands.command()
def enable(
    name: o.DestinationName,
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Send to a destination again whose receiver had said that it is gone."""
    from alerts.delivery import admin
    from alerts.lifecycle.audit import write_audit_row

    with writing(database_url, state_dir) as connection:
        known = admin.enable(connection, name)
        if known:
            write_audit_row(connection, actor_of(actor), "outbox.enable", after={"destination": name})
    if not known:
        raise SettingsError(f"outbox enable: nothing was ever sent to {name}; awry outbox list names the destinations")
    say(f"{name} is sent to again")


@commands.command()
def route(
    severity: o.RoutedSeverity = "error",
    rule: o.Rule = None,
    kind: o.RoutedKind = "threshold",
    probe: o.ProbeFilter = None,
    tenant: o.Tenant = None,
    model: o.ModelFilter = None,
    conversation: o.RoutedConversation = None,
    at: o.RoutedAt = None,
    verify: o.VerifiedDestinations = None,
    as_json: o.Json = False,
    state_dir: o.StateDir = None,
) -> None:
    """Say where an alert with these labels would go, by which routes, and what would hold it. Sends nothing.

    With --verify it fails where the alert would go elsewhere: for tests of a configuration.
    """
    from monitor.cli.render.outbox import print_routes, routes_document
    from monitor.settings import load_settings

    alert = {"severity": severity, "rule": rule, "kind": kind, "probe": probe, "tenant": tenant, "model": model}
    try:
        moment = datetime.fromisoformat(at) if at is not None else datetime.now(UTC)
    except ValueError:
        raise SettingsError(f"at: {at!r} is no time; write for example 2026-12-24T03:00+01:00") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    routing = load_settings(state_dir=state_dir).routing
    document = routes_document(routing, alert | {"conversation_id": conversation}, moment)
    (print_json if as_json else print_routes)(document)
    found = [row["destination"] for row in document]
    if verify is not None and found != [name.strip() for name in verify.split(",")]:
        raise SettingsError(f"verify: the alert goes to {','.join(found)}, not to {verify}")


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
