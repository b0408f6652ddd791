"""Alerts and silences of before names in keys were escaped: from a filled database of the schema before, and back."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.keys import former_key
from storage.partitions import ensure_ahead
from tests.storage.test_migrations import migrate
from tests.support.alerts.alert_rows import all_alerts, flagged
from tests.support.alerts.alert_scenes import BURST, in_transaction, look, rules, scored

INSERT = text(
    "INSERT INTO alerts (id, dedup_key, rule, kind, probe, tenant, model, severity, state, count, top_score, "
    "threshold) VALUES (:id, :key, :rule, :kind, 'drift', :tenant, :model, 'warning', :state, 1, 0.6, 0.5)"
)
SILENCE = text(
    "INSERT INTO silences (id, dedup_key, severity, ends_at, comment, created_by) "
    "VALUES (:id, :key, 'critical', now() + CAST(:lasting AS interval), 'INC-1', 'anna')"
)


def fill(engine: Engine, key: str, tenant: str | None, model: str = "smol", **more: Any) -> None:
    values = {"rule": "threshold", "kind": "threshold", "state": "open", **more}
    with engine.begin() as connection:
        connection.execute(INSERT, {"id": uuid.uuid4(), "key": key, "tenant": tenant, "model": model, **values})


def silence(engine: Engine, key: str, lasting: timedelta = timedelta(days=1)) -> None:
    with engine.begin() as connection:
        connection.execute(SILENCE, {"id": uuid.uuid4(), "key": key, "lasting": lasting})


@pytest.fixture
def before(empty_engine: Engine) -> Engine:
    migrate(empty_engine, "0012")
    return empty_engine


def to_head(engine: Engine) -> Engine:
    migrate(engine, "head")
    ensure_ahead(engine)
    return engine


def silenced_keys(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(connection.execute(text("SELECT dedup_key FROM silences")).scalars())


def test_a_live_alert_keeps_its_key_until_it_is_resolved(before: Engine) -> None:
    fill(before, "threshold:drift:shop_eu:smol", "shop:eu")
    fill(before, "threshold:drift:bank:smol", "bank")
    engine = to_head(before)
    assert {row.dedup_key for row in all_alerts(engine) if row.former_key} == {"threshold:drift:shop_eu:smol"}

    in_transaction(engine, record_flagged, [flagged(1, tenant="shop:eu"), flagged(2, tenant="bank")], ("pager",))
    counts = {row.dedup_key: row.count for row in all_alerts(engine)}
    assert counts == {"threshold:drift:shop_eu:smol": 2, "threshold:drift:bank:smol": 2}, "no second alert"

    with engine.begin() as connection:
        connection.execute(text("UPDATE alerts SET state = 'resolved', resolved_at = now() - interval '2 days'"))
    both = [flagged(3, tenant="shop:eu"), flagged(4, tenant="shop_eu")]
    in_transaction(engine, record_flagged, both, ("pager",))
    live = {row.dedup_key: (row.tenant, row.count) for row in all_alerts(engine) if row.state != "resolved"}
    assert live == {
        "threshold:drift:shop%3Aeu:smol": ("shop:eu", 1),
        "threshold:drift:shop_eu:smol": ("shop_eu", 1),
    }, "and then each tenant has its own"


def test_both_names_of_one_former_key_count_there_while_it_is_live(before: Engine) -> None:
    fill(before, "threshold:drift:shop_eu:smol", "shop:eu")
    engine = to_head(before)
    both = [flagged(1, tenant="shop:eu"), flagged(2, tenant="shop_eu")]
    in_transaction(engine, record_flagged, both, ("pager",))
    assert [(row.dedup_key, row.count) for row in all_alerts(engine)] == [("threshold:drift:shop_eu:smol", 3)]


def test_a_tenant_that_is_a_dash_and_none_are_two(before: Engine) -> None:
    fill(before, "threshold:drift:-:smol", "-")
    engine = to_head(before)
    assert [row.former_key for row in all_alerts(engine)] == [True]
    in_transaction(engine, record_flagged, [flagged(1, tenant="-")], ("pager",))
    assert len(all_alerts(engine)) == 1
    with engine.begin() as connection:
        connection.execute(text("UPDATE alerts SET state = 'resolved', resolved_at = now() - interval '2 days'"))
    in_transaction(engine, record_flagged, [flagged(2, tenant="-"), flagged(3, tenant=None)], ("pager",))
    live = {row.dedup_key for row in all_alerts(engine) if row.state != "resolved"}
    assert live == {"threshold:drift:%2D:smol", "threshold:drift:-:smol"}


def test_a_key_that_was_cut_is_found(before: Engine) -> None:
    tenant = "eu:" + "t" * 300
    key = former_key("threshold", "drift", [tenant, "smol"])
    assert key is not None
    assert len(key) == 255
    fill(before, key, tenant)
    engine = to_head(before)
    in_transaction(engine, record_flagged, [flagged(1, tenant=tenant)], ("pager",))
    assert [(row.dedup_key, row.count) for row in all_alerts(engine)] == [(key, 2)]


def test_keys_of_today_are_not_taken_for_former_ones(before: Engine) -> None:
    fill(before, "threshold:drift:shop%3Aeu:smol", "shop:eu")
    fill(before, "threshold:drift:shop_eu:smol", "shop_eu")
    engine = to_head(before)
    assert [row.former_key for row in all_alerts(engine)] == [False, False]
    in_transaction(engine, record_flagged, [flagged(1, tenant="shop:eu")], ("pager",))
    assert {row.tenant: row.count for row in all_alerts(engine)} == {"shop:eu": 2, "shop_eu": 1}


def test_a_rate_rule_goes_on_with_its_alert(before: Engine) -> None:
    fill(before, "burst:drift:shop_eu", "shop:eu", rule="burst", kind="rate", model=None)  # type: ignore[arg-type]
    engine = to_head(before)
    scored(engine, 1, 3, tenant="shop:eu")
    assert [each.event for each in look(engine, rules(BURST)).opened] == ["alert.worsened"], "it is an error now"
    assert [(row.dedup_key, row.count) for row in all_alerts(engine)] == [("burst:drift:shop_eu", 4)]


def test_a_silence_of_a_former_key_holds_for_what_has_the_escaped_one(before: Engine) -> None:
    fill(before, "threshold:drift:shop_eu:smol", "shop:eu", state="resolved")
    silence(before, "threshold:drift:shop_eu:smol")
    silence(before, "threshold:drift:bank:smol")
    silence(before, "threshold:drift:over_eu:smol", timedelta(days=-1))
    engine = to_head(before)
    assert silenced_keys(engine) == [
        "threshold:drift:bank:smol",
        "threshold:drift:over_eu:smol",
        "threshold:drift:shop%3Aeu:smol",
        "threshold:drift:shop_eu:smol",
    ]
    (opened,) = in_transaction(engine, record_flagged, [flagged(1, tenant="shop:eu")], ("pager",))
    assert opened.suppressed


def test_rows_survive_the_way_back(before: Engine) -> None:
    fill(before, "threshold:drift:shop_eu:smol", "shop:eu")
    with before.connect() as connection:
        rows = connection.execute(text("SELECT to_jsonb(a) FROM alerts AS a")).scalars().all()
    migrate(before, "head")
    migrate(before, "0012", down=True)
    with before.connect() as connection:
        assert connection.execute(text("SELECT to_jsonb(a) FROM alerts AS a")).scalars().all() == rows
