"""An erasure takes names as a whole and of their kind: what is others', and awry's own words, stays as it is."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from sqlalchemy import Engine, Table, insert, select, text, update

from alerts.lifecycle import actions
from alerts.lifecycle.audit import write_audit_row
from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.model import Flagged
from storage import schema
from storage.erase import erase
from storage.erase_preview import preview
from storage.erasures import Target
from storage.writer import BatchRows
from tests.support.alerts.alert_rows import all_alerts, all_outbox
from tests.support.alerts.alert_scenes import ANNA, HOUR, audit_rows, in_transaction, rules, silence_matching
from tests.support.rows import dump, message, score, stored, write

_KEPT = (schema.alerts, schema.outbox, schema.silences, schema.audit, schema.rule_states, schema.destinations)
PER_TENANT = '[[threshold]]\nname = "{0}"\nper = ["tenant", "model", "conversation"]\n'


def traffic(engine: Engine, first: int, tenant: str, rule: str = "insecure-code-spillover", **more: Any) -> uuid.UUID:
    """Two flagged messages of a tenant, with their alert, whose notification waits; the alert's id."""
    names = {"tenant": tenant, "model": "smol", "conversation_id": f"talk-{first}", **more}
    rows = [message(n, f"s{n}", message_id=f"m{n}", user_id=f"u{n}", **names) for n in (first, first + 1)]
    write(engine, BatchRows(rows, [score(n.at.offset, 0.9) for n in rows]))
    of = [Flagged("drift", 0.9, 0.5, r.tenant, r.model, r.at, r.message_id, r.conversation_id, r.day) for r in rows]
    known = {alert.id for alert in all_alerts(engine)}
    in_transaction(engine, record_flagged, of, ("pager", "siem"), rules(PER_TENANT.format(rule)).threshold)
    new: uuid.UUID
    (new,) = {alert.id for alert in all_alerts(engine)} - known
    with engine.begin() as connection:
        keyed = schema.outbox.c.body["data"]["dedup_key"].astext
        connection.execute(update(schema.outbox).where(schema.outbox.c.alert_id == new).values(group_key=keyed))
    return new


def kept(engine: Engine) -> dict[str, list[str]]:
    """What stays, as the tables have it."""
    return {table.name: sorted(str(row) for row in stored(engine, table)) for table in _KEPT}


def silenced(engine: Engine, **matchers: str) -> None:
    silence_matching(engine, HOUR, "critical", **matchers)


def test_another_tenant_keeps_what_it_has(engine: Engine) -> None:
    """One whose name has the erased one's in it, as a word of its own."""
    other = traffic(engine, 0, "corner-shop")
    silenced(engine, tenant="corner-shop")
    silenced(engine, tenant="corner-*")
    silenced(engine, rule="shop", model="shop")
    in_transaction(engine, actions.silence_alert, other, HOUR, ANNA, "corner-shop's own test")
    in_transaction(engine, actions.judge, other, "true", ANNA, "seen at corner-shop and shop-floor")
    before = kept(engine)
    traffic(engine, 10, "shop")
    silenced(engine, tenant="shop")
    silenced(engine, tenant="shop*")
    target = Target("tenant", "shop")
    counted = preview(engine, target)
    assert counted["silences"] == 2
    assert erase(engine, target).rows == counted
    after = kept(engine)
    added = len(after["audit"]) - len(before["audit"])
    assert added > 0
    after["audit"] = [row for row in after["audit"] if row in before["audit"]]
    assert after == before
    assert "'shop'" not in str([row for row in stored(engine, schema.silences) if row["tenant"] == "shop"])
    assert {r["message_id"] for r in stored(engine, schema.messages)} == {"m0", "m1"}


WORDS = ("threshold", "drift", "smol", "warning", "open", "data", "dedup_key", "insecure-code-spillover", "acme", "-")


@pytest.mark.parametrize("kind", ["user", "id", "conversation", "tenant"])
@pytest.mark.parametrize("word", WORDS)
def test_an_ordinary_word_as_a_name_changes_nothing_of_others(engine: Engine, kind: Any, word: str) -> None:
    alert = traffic(engine, 0, "acme")
    silenced(engine, rule="threshold", model="smol", probe="drift")
    if kind != "tenant":
        silenced(engine, tenant="acme")
    in_transaction(engine, actions.silence_alert, alert, HOUR, ANNA)
    in_transaction(engine, actions.acknowledge, alert, ANNA)
    if (kind, word) == ("tenant", "acme"):
        return
    names = {"user": "user_id", "id": "message_id", "conversation": "conversation_id", "tenant": "tenant"}
    write(engine, BatchRows([message(20, "s20", **{names[kind]: word})], [score(20)]))
    before = kept(engine)
    counted = preview(engine, Target(kind, word))
    assert counted == {"messages": 1, "scores": 1}
    assert erase(engine, Target(kind, word)).rows == counted
    assert kept(engine) == before


def test_a_person_s_name_goes_from_comments_alone(engine: Engine) -> None:
    traffic(engine, 0, "acme")
    with engine.begin() as connection:
        connection.execute(
            insert(schema.silences).values(
                id=uuid.uuid4(), tenant="anna", severity="critical", comment="asked by anna, not anna-lena",
                created_by="anna", ends_at=text("now() + interval '1 day'"),
            )
        )  # fmt: skip
    assert erase(engine, Target("user", "anna")).rows == {"silences": 1}
    (row,) = stored(engine, schema.silences)
    assert (row["tenant"], row["comment"], row["created_by"]) == ("anna", "asked by [erased], not anna-lena", "anna")


def test_a_key_that_no_alert_has_any_more_loses_the_name(engine: Engine) -> None:
    """A silence of one key outlives its alert; the same label in another place of an alert that stays is no tenant."""
    other = traffic(engine, 0, "acme", model="canary-1")
    in_transaction(engine, actions.silence_alert, other, HOUR, ANNA)
    silenced(engine, dedup_key="burst:drift:canary-1")
    silenced(engine, dedup_key="burst:drift:acme")
    target = Target("tenant", "canary-1")
    counted = preview(engine, target)
    assert erase(engine, target).rows == counted == {"silences": 1, "audit": 1}
    key = all_alerts(engine)[0].dedup_key
    assert sorted(row["dedup_key"] for row in stored(engine, schema.silences)) == ["burst:drift:acme", key]
    assert [row.after["dedup_key"] for row in audit_rows(engine) if row.action == "silence" and not row.alert_id] == [
        key,
        "burst:drift:[erased]",
        "burst:drift:acme",
    ]


def test_an_alert_on_all_tenants_loses_the_name_and_goes_on(engine: Engine) -> None:
    """Its tenant is the one that has most of it."""
    alert = traffic(engine, 0, "canary-1")
    key = "blind:unscored"
    with engine.begin() as connection:
        connection.execute(
            update(schema.alerts).values(kind="monitor", rule="blind", dedup_key=key, conversation_id=None)
        )
        body = {"type": "alert.opened", "data": {"dedup_key": key, "tenant": "canary-1", "rule": "blind"}}
        body["data"]["links"] = {"runbook": "https://runbooks.invalid/?tenant=canary-1&k=blind%3Aunscored"}  # type: ignore[index]
        connection.execute(update(schema.outbox).values(body=body, group_key=f"canary-1:{key}"))
        state = {"dedup_key": key, "rule": "blind", "phase": "firing", "held_seconds": 1, "alert_id": alert}
        subject = {"probe": None, "tenant": "canary-1", "model": None, "conversation_id": None}
        connection.execute(insert(schema.rule_states).values(**state, subject=subject, evaluated_at=text("now()")))
    in_transaction(engine, actions.silence_alert, alert, HOUR, ANNA)
    target = Target("tenant", "canary-1")
    counted = preview(engine, target)
    assert erase(engine, target).rows == counted
    assert "canary-1" not in dump(engine)
    (left,) = all_alerts(engine)
    assert (left.id, left.dedup_key, left.state, left.tenant) == (alert, key, "silenced", None)
    data = all_outbox(engine)[0].body["data"]
    assert (data["dedup_key"], data["tenant"]) == (key, "[erased]")
    assert data["links"]["runbook"] == "https://runbooks.invalid/?tenant=[erased]&k=blind%3Aunscored"
    assert {row.group_key for row in all_outbox(engine)} == {f"[erased]:{key}"}
    assert [row["phase"] for row in stored(engine, schema.rule_states)] == ["firing"]
    assert len(stored(engine, schema.silences)) == 1


def test_in_a_notification_only_the_erased_alert_loses_its_names(engine: Engine) -> None:
    """Two tenants have a conversation of the same name; one notification is about both."""
    mine, other = (traffic(engine, n, tenant, conversation_id="c1") for n, tenant in ((0, "canary-1"), (10, "acme")))
    of = {row.alert_id: row for row in all_outbox(engine) if row.destination == "pager"}
    page = {"data": {**of[other].body["data"], "group": {"key": "all", "others": [of[mine].body["data"]]}}}
    with engine.begin() as connection:
        outbox: Table = schema.outbox
        for alert in (mine, other):
            connection.execute(update(outbox).where(outbox.c.id == of[alert].id).values(page_id=of[other].id))
        connection.execute(update(outbox).where(outbox.c.id == of[other].id).values(page=page))
    before = of[other].body
    target = Target("tenant", "canary-1")
    counted = preview(engine, target)
    assert erase(engine, target).rows == counted
    assert "canary-1" not in dump(engine)
    with engine.connect() as connection:
        row = connection.execute(select(outbox).where(outbox.c.id == of[other].id)).one()
    assert (row.body, row.page["data"]["dedup_key"]) == (before, before["data"]["dedup_key"])
    (told,) = row.page["data"]["group"]["others"]
    assert (told["rule"], told["tenant"], told["dedup_key"]) == ("insecure-code-spillover", "[erased]", "[erased]")


def test_a_token_s_audit_keeps_its_scope(engine: Engine) -> None:
    after = {"name": "read", "scope": "read", "tenant": "read", "days": 3}
    in_transaction(engine, write_audit_row, ANNA, "create token", after=after)
    assert erase(engine, Target("user", "read")).rows == {}
    assert erase(engine, Target("tenant", "read")).rows == preview(engine, Target("tenant", "read")) | {"audit": 1}
    assert audit_rows(engine)[-1].after == {"name": "[erased]", "scope": "read", "tenant": "[erased]", "days": 3}


def test_a_role_that_only_reads_can_ask(engine: Engine) -> None:
    from tests.storage.test_partitions import role

    traffic(engine, 0, "acme")
    with role(engine, "SELECT ON ALL TABLES IN SCHEMA public") as reader:
        assert preview(reader, Target("tenant", "acme"))["alerts"] == 1


def test_nothing_opens_twice_after_an_erasure(engine: Engine) -> None:
    """The notification of the end has the key of that of the beginning."""
    alert = traffic(engine, 0, "acme", rule="threshold")
    erase(engine, Target("user", "threshold"))
    in_transaction(engine, actions.resolve, alert, ANNA)
    assert len({row.body["data"]["dedup_key"] for row in all_outbox(engine)}) == 1
