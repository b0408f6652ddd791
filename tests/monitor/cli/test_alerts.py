"""`awry alerts` and `awry rules` as people type them; errors are one line, names cannot steer a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import Engine
from typer.testing import CliRunner

from monitor.cli.app import app, register
from probes.card import save_probe
from probes.model.load import ChatModel
from storage.queries.alerts import judged_messages
from tests.monitor.cli.test_app import awry, refused
from tests.support.alert_rows import all_alerts, all_outbox, flagged, open_alerts
from tests.support.alert_scenes import audit_rows, pass_time, scored
from tests.support.worker import make_probe

Awry = Callable[..., Result]


@pytest.fixture
def run(engine: Engine, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> Awry:
    """The command in this process, on this test's database."""
    register()
    monkeypatch.setenv("AWRY_DATABASE_URL", postgres_database)
    monkeypatch.setenv("COLUMNS", "400")

    def awry_here(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return awry_here


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def test_bare_it_lists(engine: Engine, run: Awry) -> None:
    (opened,) = open_alerts(engine, [flagged(1)])
    assert done(run("alerts")) == done(run("alerts", "list"))
    assert str(opened.alert_id)[:8] in done(run("alerts", "--state", "open"))
    assert "threshold:drift" not in done(run("alerts", "--state", "resolved"))
    assert run("alerts", "--state", "closed").exit_code == 2


def test_the_list_is_narrowed(engine: Engine, run: Awry) -> None:
    open_alerts(engine, [flagged(1), flagged(2, tenant="bank"), flagged(3, probe="other")])
    lines = [
        json.loads(x)
        for x in done(run("alerts", "list", "--json", "--tenant", "shop", "--probe", "drift")).splitlines()
    ]
    assert [(x["dedup_key"], x["state"]) for x in lines] == [("threshold:drift:shop:smol", "open")]
    assert len(done(run("alerts", "list", "--json", "--limit", "2")).splitlines()) == 2


def test_from_open_to_resolved(engine: Engine, run: Awry) -> None:
    (opened,) = open_alerts(engine, [flagged(1)])
    short = str(opened.alert_id)[:8]
    assert "is acknowledged" in done(run("alerts", "ack", short, "--as", "anna"))
    assert "is resolved" in done(run("alerts", "resolve", "threshold:drift:shop:smol"))
    assert "is open" in done(run("alerts", "reopen", short))
    assert "judged authorised_test" in done(run("alerts", "verdict", short, "authorised_test", "--note", "red team"))
    assert [(r.action, r.via) for r in audit_rows(engine)[1:]] == [
        ("acknowledge", "cli"),
        ("resolve", "cli"),
        ("reopen", "cli"),
        ("verdict", "cli"),
    ]
    assert audit_rows(engine)[1].who == "anna"
    assert len({r.origin for r in audit_rows(engine)[1:]} - {None}) == 1


def test_show_tells_everything_and_no_terminal_is_steered(engine: Engine, run: Awry) -> None:
    odd = "[red]\x1b[2J"
    (opened,) = open_alerts(engine, [flagged(1, 0.6, tenant=odd), flagged(2, 0.9, tenant=odd)], ("pager",))
    run("alerts", "ack", str(opened.alert_id), "--as", "an\x1bna")
    shown = done(run("alerts", "show", str(opened.alert_id)))
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
    assert "\x1b" not in done(run("alerts"))


def test_silences(engine: Engine, run: Awry) -> None:
    (opened,) = open_alerts(engine, [flagged(1)])
    assert "covers 1 live alerts" in done(run("alerts", "silence", str(opened.alert_id), "--for", "2h"))
    done(run("alerts", "silence", "--tenant", "b*", "--up-to", "error", "--comment", "load test"))
    listed = done(run("alerts", "silences"))
    assert "dedup_key threshold:drift:shop:smol" in listed
    assert "tenant b*" in listed
    assert "load test" in listed
    open_alerts(engine, [flagged(2, tenant="bank"), flagged(3, 5.0, tenant="barn")])
    assert {r.tenant: r.state for r in all_alerts(engine)} == {"shop": "silenced", "bank": "silenced", "barn": "open"}
    (first, *_) = [line.split()[0] for line in listed.splitlines() if "dedup_key" in line]
    assert "1 alerts speak again" in done(run("alerts", "unsilence", first))


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
        (("rules", "test", "--since", "soon"), "since: 'soon' is no duration"),
        (("rules", "test", "--since", "0s"), "since: nothing was stored since now"),
        (("rules", "test", "--rules", "none.toml"), "rules_file: cannot read none.toml"),
        (("rules", "budget", "--prevalence", "2", "--tpr", "1", "--fpr", "0"), "prevalence: 2 is not a rate"),
    ],
)
def test_mistakes_are_named(run: Awry, arguments: tuple[str, ...], said: str) -> None:
    failed = run(*arguments)
    assert failed.exit_code == 1
    assert str(failed.exception).startswith(said)


def test_a_mistake_is_one_line_of_a_process(postgres_database: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[[rate]]\nname = "a"\nwindow = "1h"\n')
    assert refused(awry("rules", "check", tmp_path / "r.toml")).endswith('r.toml:1: rate "a": flagged: is missing')
    line = refused(awry("run", "--rules", tmp_path / "r.toml", "--database-url", postgres_database))
    assert "flagged: is missing" in line


def test_precision_has_an_interval(engine: Engine, run: Awry) -> None:
    for n, verdict in enumerate(["true"] * 6 + ["false"] * 3 + ["authorised_test", ""]):
        (opened,) = open_alerts(engine, [flagged(n, tenant=f"t{n}")])
        if verdict:
            done(run("alerts", "verdict", str(opened.alert_id), verdict))
    shown = done(run("alerts", "precision"))
    assert "0.70 [0.35, 0.93]" in shown
    assert [x for x in shown.split() if x.isdigit()][:4] == ["6", "1", "3", "1"]


def test_what_came_after_a_verdict_was_not_judged(engine: Engine, run: Awry) -> None:
    (opened,) = open_alerts(engine, [flagged(1), flagged(2)])
    done(run("alerts", "verdict", str(opened.alert_id), "true"))
    open_alerts(engine, [flagged(3)])
    with engine.connect() as connection:
        assert {at.offset for at in judged_messages(connection, "drift", ("true",))} == {1, 2}
        assert judged_messages(connection, "drift", ("false",)) == set()
        assert judged_messages(connection, "other", ("true",)) == set()


def test_calibration_leaves_judged_messages_out(engine: Engine, run: Awry) -> None:
    from monitor.benign_scores import benign_scores

    scored(engine, 0, 30, value=0.1)
    scored(engine, 100, 5)
    keys = [flagged(100, tenant="a"), flagged(101, tenant="b"), flagged(102, tenant="c"), flagged(103, tenant="d")]
    opened = open_alerts(engine, keys)
    for one, verdict in zip(opened, ("true", "authorised_test", "false"), strict=False):
        done(run("alerts", "verdict", str(one.alert_id), verdict))
    said: list[str] = []
    with engine.connect() as connection:
        kept = benign_scores(connection, "drift", said.append)
    assert sorted(row.at.offset for row in kept) == [*range(30), 102, 103, 104]
    assert said == [
        "2 of 35 messages left out: their alerts were judged true or authorised tests",
        "2 flagged messages were judged by nobody and count as benign; see awry alerts verdict",
    ]


def test_rules_are_checked_and_tried(engine: Engine, run: Awry, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(
        '[[threshold]]\nname = "each"\n[[rate]]\nname = "burst"\nflagged = 3\nwindow = "1h"\nshadow = true\n'
        '[[monitor]]\nname = "silence"\ncheck = "no_traffic"\n'
    )
    checked = done(run("rules", "check", file))
    assert "rate      burst  (shadow)" in checked
    assert "3 rules, no mistakes" in checked
    scored(engine, 0, 4, ago=600)
    tried = done(run("rules", "test", "--since", "12h", "--rules", file))
    assert "4 scores of the last 12h" in tried
    assert "each:drift:shop:smol (1)" in tried
    assert "not tried, since the tables do not hold what they looked at: silence" in tried
    row = next(line.split() for line in tried.splitlines() if line.strip().startswith("all live rules"))
    assert row[3:5] == ["1", "2.0"]
    assert all_outbox(engine) == []


def test_the_sender_evaluates_rules_and_sends_what_they_find(
    engine: Engine, postgres_database: str, tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text('[[rate]]\nname = "burst"\nflagged = 3\nwindow = "1h"\n')
    scored(engine, 0, 4)
    sent = [awry("send", "--once", "--rules", tmp_path / "r.toml", "--database-url", postgres_database) for _ in "ab"]
    assert [x.returncode for x in sent] == [0, 0], sent[0].stderr
    assert "alert.opened burst:drift:shop count=4 score=4.00 threshold=3.00" in sent[0].stdout
    assert sent[1].stdout == ""


def test_the_built_in_rules_are_tried_without_a_file(engine: Engine, run: Awry) -> None:
    scored(engine, 0, 4)
    pass_time(engine, 60)
    assert "threshold:drift:shop:smol (1)" in done(run("rules", "test"))


def test_a_budget_of_fewer_messages_than_none_is_refused(run: Awry) -> None:
    said = ("rules", "budget", "--prevalence", "0.1", "--tpr", "1", "--fpr", "0", "--per-day", "-5")
    assert run(*said).exit_code == 2


def test_the_budget(run: Awry) -> None:
    said = done(run("rules", "budget", "--prevalence", "1e-4", "--tpr", "0.43", "--fpr", "0.01", "--per-day", "50000"))
    assert "10,042.0 are flagged, 43.0 of them rightly" in said
    assert "0.43% of the flagged are bad" in said
    assert "502.0 flagged, 2.1 of them rightly" in " ".join(said.split()).replace("502.1", "502.0").replace(
        "2.2", "2.1"
    )
    assert "an FPR of at most 4.3e-05 at this TPR" in said


def test_calibrate_says_what_it_leaves_out(engine: Engine, run: Awry, chat: ChatModel, tmp_path: Path) -> None:
    card = save_probe(make_probe(chat), tmp_path)
    for n in range(40):
        scored(engine, n, value=n / 100)
    scored(engine, 100, 2)
    (opened,) = open_alerts(engine, [flagged(100), flagged(101)])
    calibrate = ("calibrate", "--probe", card, "--from-tables", "--target-fpr", "0.05", "--out", tmp_path / "new")
    assert "0 of 42 messages left out" in done(run(*calibrate))
    done(run("alerts", "verdict", str(opened.alert_id), "true"))
    said = done(run(*calibrate))
    assert "2 of 42 messages left out: their alerts were judged true or authorised tests" in said
    # 5 % of 40 are the two highest, 0.39 and 0.38.
    assert "threshold 0.370" in said
