"""Who is told of an alert from its opening to its end, where routes decide."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from alerts.lifecycle import actions
from alerts.lifecycle.lifecycle import record_flagged
from alerts.routing.routing import Routing, routing_of
from alerts.routing.tree import Route
from tests.support.alerts.alert_rows import all_outbox, flagged
from tests.support.alerts.alert_scenes import ANNA, in_transaction, insert_worker, look, only_alert, rules, seconds_ago

ROUTING = routing_of(
    ("chat", "oncall", "shop"),
    Route.model_validate(
        {
            "destinations": ["chat"],
            "routes": [
                {"matchers": ['severity="critical"'], "destinations": ["oncall"]},
                {"matchers": ['tenant="shop"'], "destinations": ["shop"]},
            ],
        }
    ),
)


def told(engine: Engine) -> list[tuple[str, str]]:
    return [(row.destination, row.event.removeprefix("alert.")) for row in all_outbox(engine)]


def flag(engine: Engine, offset: int, value: float, routing: Routing = ROUTING, **names: str) -> None:
    in_transaction(engine, record_flagged, [flagged(offset, value, **names)], routing)  # type: ignore[arg-type]


def test_who_is_told_first_is_told_of_all_that_comes(engine: Engine) -> None:
    flag(engine, 1, 0.6, tenant="bank")
    assert told(engine) == [("chat", "opened")]
    flag(engine, 2, 2.0, tenant="bank")
    assert sorted(told(engine)[1:]) == [("chat", "worsened"), ("oncall", "worsened")]
    in_transaction(engine, actions.resolve, only_alert(engine).id, ANNA)
    assert sorted(told(engine)[3:]) == [("chat", "resolved"), ("oncall", "resolved")]
    by_route = {(row.destination, row.event): row.routes for row in all_outbox(engine)}
    assert by_route["oncall", "alert.resolved"] == ['{}/{severity="critical"}']
    assert by_route["chat", "alert.resolved"] == ["{}"]


def test_the_first_route_that_matches_ends_the_search(engine: Engine) -> None:
    flag(engine, 1, 2.0, tenant="shop")
    flag(engine, 2, 0.6, tenant="shop", model="other")
    assert told(engine) == [("oncall", "opened"), ("shop", "opened")]


@pytest.mark.parametrize("kind", ["fail_open", "no_worker"])
def test_an_alert_on_the_monitor_is_nobodys_tenants(engine: Engine, kind: str) -> None:
    """It may name the tenant that makes most of it; it is about all of them."""
    insert_worker(engine, seen_at=seconds_ago(900))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            'INSERT INTO messages (source, partition, "offset", sub, payload_sha256, day, status, tenant) '
            "SELECT 't', 0, n, 0, 'aa', current_date, 'failed', 'shop' FROM generate_series(1, 5) AS n"
        )
    found = rules(f'[[monitor]]\nname = "m"\ncheck = "{kind}"\nwindow = "10m"\nseverity = "warning"\n')
    look(engine, found, ROUTING)  # type: ignore[arg-type]
    assert only_alert(engine).tenant == ("shop" if kind == "fail_open" else None)
    assert told(engine) == [("chat", "opened")]
