"""`awry alerts` as people type it; errors are one line, names cannot steer a terminal."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import Engine

from storage.queries.alerts import judged_messages
from tests.support.alerts.alert_rows import all_alerts, flagged, open_alerts
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.cli import Invoke, awry, message_of, output_of


def test_bare_it_lists(engine: Engine, run: Invoke) -> None:
    (opened,) = open_alerts(engine, [flagged(1)])
    assert output_of(run("alerts")) == output_of(run("alerts", "list"))
    assert str(opened.alert_id)[:8] in output_of(run("alerts", "--state", "open"))
    assert "threshold:drift" not in output_of(run("alerts", "--state", "resolved"))
    assert run("alerts", "--state", "closed").exit_code == 2


def test_the_list_is_narrowed(engine: Engine, run: Invoke) -> None:
    open_alerts(engine, [flagged(1), flagged(2, tenant="bank"), flagged(3, probe="other")])
    lines = [
        json.loads(x)
        for x in output_of(run("alerts", "list", "--json", "--tenant", "shop", "--probe", "drift")).splitlines()
    ]
    assert [(x["dedup_key"], x["state"]) for x in lines] == [("threshold:drift:shop:smol", "open")]
    assert len(output_of(run("alerts", "list", "--json", "--limit", "2")).splitlines()) == 2


def test_from_open_to_resolved(engine: Engine, run: Invoke) -> None:
    (opened,) = open_alerts(engine, [flagged(1)])
    short = str(opened.alert_id)[:8]
    assert "is acknowledged" in output_of(run("alerts", "ack", short, "--as", "anna"))
    assert "is resolved" in output_of(run("alerts", "resolve", "threshold:drift:shop:smol"))
    assert "is open" in output_of(run("alerts", "reopen", short))
    assert "judged authorised_test" in output_of(
        run("alerts", "verdict", short, "authorised_test", "--note", "red team")
    )
    assert [(r.action, r.via) for r in audit_rows(engine)[1:]] == [
        ("acknowledge", "cli"),
        ("resolve", "cli"),
        ("reopen", "cli"),
        ("verdict", "cli"),
    ]
    assert audit_rows(engine)[1].who == "anna"
    assert len({r.origin for r in audit_rows(engine)[1:]} - {None}) == 1


def test_show_tells_everything_and_no_terminal_is_steered(engine: Engine, run: Invoke) -> None:
    odd = "[red]\x1b[2J"
    (opened,) = open_alerts(engine, [flagged(1, 0.6, tenant=odd), flagged(2, 0.9, tenant=odd)], ("pager",))
    run("alerts", "ack", str(opened.alert_id), "--as", "an\x1bna")
    shown = output_of(run("alerts", "show", str(opened.alert_id)))
    assert "\x1b" not in shown
    for part in (
        "[red]\\x1b[2J",
        "topic/0/2",
        "0.900 class gaps",
        "an\\x1bna",
        "acknowledged",
        "alert.opened",
        "pager",
    ):
        assert part in shown
    assert "\x1b" not in output_of(run("alerts"))


def test_silences(engine: Engine, run: Invoke) -> None:
    (opened,) = open_alerts(engine, [flagged(1)])
    assert "covers 1 live alerts" in output_of(run("alerts", "silence", str(opened.alert_id), "--for", "2h"))
    output_of(run("alerts", "silence", "--tenant", "b*", "--up-to", "error", "--comment", "load test"))
    listed = output_of(run("alerts", "silences"))
    assert "dedup_key threshold:drift:shop:smol" in listed
    assert "tenant b*" in listed
    assert "load test" in listed
    open_alerts(engine, [flagged(2, tenant="bank"), flagged(3, 5.0, tenant="barn")])
    assert {r.tenant: r.state for r in all_alerts(engine)} == {"shop": "silenced", "bank": "silenced", "barn": "open"}
    (first, *_) = [line.split()[0] for line in listed.splitlines() if "dedup_key" in line]
    assert "1 alerts are no longer silenced" in output_of(run("alerts", "unsilence", first))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("alerts", "ack", "nothing"), "alert: 'nothing' names none; see awry alerts list"),
        (("alerts", "silence"), "silence: give an alert, or some of --rule, --probe, --tenant, --model"),
        (("alerts", "silence", "x", "--rule", "y"), "silence: give an alert, or some of"),
        (("alerts", "silence", "--rule", "y", "--for", "soon"), "for: 'soon' is no duration"),
        (("alerts", "silence", "--rule", "y", "--for", "0s"), "silence: it must last from 1s to 90d"),
        (("alerts", "silence", "x", "--up-to", "error"), "silence: --up-to goes with matchers"),
        (("alerts", "unsilence", "x"), "silence: 'x' names none; see awry alerts silences"),
    ],
)
def test_mistakes_are_named(run: Invoke, arguments: tuple[str, ...], said: str) -> None:
    failed = run(*arguments)
    assert failed.exit_code == 1
    assert str(failed.exception).startswith(said)


def test_precision_has_an_interval(engine: Engine, run: Invoke) -> None:
    for n, verdict in enumerate(["true"] * 6 + ["false"] * 3 + ["authorised_test", ""]):
        (opened,) = open_alerts(engine, [flagged(n, tenant=f"t{n}")])
        if verdict:
            output_of(run("alerts", "verdict", str(opened.alert_id), verdict))
    shown = output_of(run("alerts", "precision"))
    assert "0.70 [0.35, 0.93]" in shown
    assert [x for x in shown.split() if x.isdigit()][:4] == ["6", "1", "3", "1"]


def test_what_came_after_a_verdict_was_not_judged(engine: Engine, run: Invoke) -> None:
    (opened,) = open_alerts(engine, [flagged(1), flagged(2)])
    output_of(run("alerts", "verdict", str(opened.alert_id), "true"))
    open_alerts(engine, [flagged(3)])
    with engine.connect() as connection:
        assert {at.offset for at in judged_messages(connection, "drift", ("true",))} == {1, 2}
        assert judged_messages(connection, "drift", ("false",)) == set()
        assert judged_messages(connection, "other", ("true",)) == set()


@pytest.mark.slow
def test_the_list_of_alerts_by_state(engine: Engine, postgres_database: str) -> None:
    open_alerts(engine, [flagged(1, tenant="shop"), flagged(2, 3.0, tenant="bank")])
    listed = awry("alerts", "--state", "open", "--database-url", postgres_database)
    assert listed.returncode == 0, listed.stderr
    assert "critical" in listed.stdout
    assert "threshold:drift:bank:smol" in listed.stdout
    assert "2 pending, 0 delivered, 0 dead" in listed.stdout
    silenced = awry("alerts", "--state", "silenced", "--database-url", postgres_database)
    assert "bank" not in silenced.stdout


@pytest.mark.parametrize("option", [["--json"], ["--state", "open"]])
def test_options_before_the_subcommand_are_refused(run: Invoke, option: list[str]) -> None:
    assert "give options after the subcommand" in message_of(run("alerts", *option, "list"))
