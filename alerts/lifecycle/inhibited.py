"""Which live alerts are inhibited, for people: the column that the command line, the API and the page show.

Contract: `mark_inhibited` brings `alerts.inhibited_by` up to date with the settings' inhibit rules, an alert in a
transaction; it holds nothing itself (`alerts.delivery.holding` does). Any number of processes may call it.
"""

from __future__ import annotations

from sqlalchemy import Engine, select, update

from alerts.routing.inhibition import inhibitors
from alerts.routing.live import live_alerts
from alerts.routing.routing import Destinations, Routing
from storage.schema import alerts


def mark_inhibited(engine: Engine, destinations: Destinations) -> int:
    """Returns how many live alerts are inhibited now."""
    rules = destinations.inhibit_rules if isinstance(destinations, Routing) else ()
    with engine.connect() as connection:
        marked = select(alerts.c.id, alerts.c.inhibited_by).where(alerts.c.inhibited_by.is_not(None))
        before = {row.id: row.inhibited_by for row in connection.execute(marked)}
        live = live_alerts(connection) if rules else []
    now = {alert.id: [s.id for s in inhibitors(rules, live, alert.id, alert.labels)] or None for alert in live}
    for alert_id in before.keys() | now.keys():
        inhibited_by = now.get(alert_id)
        if inhibited_by != before.get(alert_id):
            with engine.begin() as connection:
                change = update(alerts).where(alerts.c.id == alert_id).values(inhibited_by=inhibited_by)
                if inhibited_by is not None:
                    change = change.where(alerts.c.state != "resolved")
                connection.execute(change)
    return sum(found is not None for found in now.values())
