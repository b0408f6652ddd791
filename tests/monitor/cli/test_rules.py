"""`awry rules` as people type it: check, try on stored scores, budget."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.model import Rules
from monitor.judge.judging import Judged, Waiting
from monitor.judge.recording import Recording
from storage.coordinates import Coordinates
from storage.judgements import record_judgement
from storage.partitions import utc_today
from storage.rollup import roll_up
from tests.support.alerts.alert_rows import all_outbox, flagged
from tests.support.alerts.alert_scenes import pass_time, scored
from tests.support.cli import Invoke, awry, message_of, output_of, refused
from tests.support.rows import digest_of


def test_rules_are_checked_and_tried(engine: Engine, run: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(
        '[[threshold]]\nname = "each"\n[[rate]]\nname = "burst"\nflagged = 3\nwindow = "1h"\nshadow = true\n'
        '[[monitor]]\nname = "silence"\ncheck = "no_traffic"\n'
    )
    checked = output_of(run("rules", "check", file))
    assert "rate      burst  (shadow)" in checked
    assert "3 rules, no mistakes" in checked
    scored(engine, 0, 4, ago=600)
    tried = output_of(run("rules", "test", "--since", "12h", "--rules-file", file))
    assert "4 scores of the last 12h" in tried
    assert "each:drift:shop:smol (1)" in tried
    assert "not tried, since the tables do not hold what they looked at: silence" in tried
    row = next(line.split() for line in tried.splitlines() if line.strip().startswith("all live rules"))
    assert row[3:5] == ["1", "2.0"]
    assert all_outbox(engine) == []


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "awry: without rules nobody is notified"),
        ('[[threshold]]\nname = "each"\nshadow = true\n', "awry: all of them are in shadow: nobody is notified"),
        ('[[threshold]]\nname = "each"\n', None),
    ],
)
def test_rules_that_notify_nobody_are_no_mistake_and_are_said(
    run: Invoke, tmp_path: Path, written: str, said: str | None
) -> None:
    (file := tmp_path / "r.toml").write_text(written)
    done = run("rules", "check", file)
    assert done.exit_code == 0
    assert "no mistakes" in done.stderr
    assert ("nobody is notified" in done.stderr) is (said is not None)
    assert said is None or said in done.stderr


def test_the_built_in_rules_are_tried_without_a_file(engine: Engine, run: Invoke) -> None:
    scored(engine, 0, 4)
    pass_time(engine, 60)
    assert "threshold:drift:shop:smol (1)" in output_of(run("rules", "test"))


def test_a_budget_of_fewer_messages_than_none_is_refused(run: Invoke) -> None:
    said = ("rules", "budget", "--prevalence", "0.1", "--tpr", "1", "--fpr", "0", "--per-day", "-5")
    assert run(*said).exit_code == 2


def test_a_budget_of_endless_messages_is_refused(run: Invoke) -> None:
    flags = ("--prevalence", "0.1", "--tpr", "1", "--fpr", "0", "--per-day", "inf", "--json")
    assert "per-day: must be a number of messages" in message_of(run("rules", "budget", *flags))


def test_the_budget(run: Invoke) -> None:
    said = output_of(
        run("rules", "budget", "--prevalence", "1e-4", "--tpr", "0.43", "--fpr", "0.01", "--per-day", "50000")
    )
    assert "10,042.0 are flagged, 43.0 of them rightly" in said
    assert "0.43% of the flagged are bad" in said
    assert "502.0 flagged, 2.1 of them rightly" in " ".join(said.split()).replace("502.1", "502.0").replace(
        "2.2", "2.1"
    )
    assert "an FPR of at most 4.3e-05 at this TPR" in said


def verdicts(engine: Engine) -> None:
    """Two days ago to now: of drift 4 flagged (1 harmful, 2 harmless, 1 not asked) and 3 that passed (1 harmful)."""
    scored(engine, 0, 4, ago=2 * 86_400 - 60)
    scored(engine, 4, 3, value=0.4, ago=60)
    scored(engine, 7, 100, value=-1.0, ago=3600)
    said = ["harmful", "harmless", "harmless", "not asked", "harmful", "harmless", "failed"]
    with engine.begin() as connection:
        for offset, verdict in enumerate(said):
            at = Coordinates("topic", 0, offset)
            assert record_judgement(connection, at, "drift", digest_of("drift"), verdict, "m", None, datetime.now(UTC))  # type: ignore[arg-type]
    roll_up(engine)


def test_what_the_cascade_saves(engine: Engine, run: Invoke) -> None:
    verdicts(engine)
    said = json.loads(output_of(run("rules", "budget", "--judged", "7d", "--json")))["cascade"]
    assert said["days"] == pytest.approx(2, abs=0.01)
    (probe,) = said["probes"]
    assert probe["probe"] == "drift"
    assert probe["band_per_day"] == pytest.approx(3.5, abs=0.05)
    assert probe["judged_per_day"] == pytest.approx(2.5, abs=0.05)
    assert probe["fewer_per_day"] == pytest.approx(1, abs=0.05)
    assert probe["more_per_day"] == pytest.approx(0.5, abs=0.05)
    # Two of three flagged ones are harmless: of four, 2.67.
    assert probe["fewer_per_day_if_all_were_judged"] == pytest.approx(4 / 3, abs=0.05)
    assert probe["precision"] == pytest.approx(1 / 3)
    printed = " ".join(output_of(run("rules", "budget", "--judged", "7d")).split())
    assert "33% (6% to 79% of 3)" in printed
    assert "alerts opened 0" in printed


def test_alerts_that_the_judge_ended_and_opened(engine: Engine, run: Invoke) -> None:
    today = utc_today()
    scored(engine, 0, 2)
    scored(engine, 2, value=0.4)
    rules = Rules.model_validate({"threshold": [{"judge_resolves": True, "per": "tenant"}]}).threshold
    judge = Recording(engine, "small at judge", "judge", ("pager",), rules)

    def ask(offset: int, tenant: str, state: Any, *, missed: bool = False) -> None:
        one = replace(flagged(offset, 0.4 if missed else 0.9, tenant=tenant), day=today)
        if not missed:
            with engine.begin() as connection:
                record_flagged(connection, [one], ("pager",), rules)
        assert judge.record(Waiting(one, digest_of("drift"), not missed, False, "", 0.0), Judged(state))

    ask(0, "a", "harmless")
    ask(1, "b", "harmful")
    ask(2, "c", "harmful", missed=True)
    assert json.loads(output_of(run("rules", "budget", "--judged", "1d", "--json")))["cascade"]["alerts"] == {
        "opened": 3,
        "harmless": 1,
        "resolved": 1,
        "unsent": 1,
        "raised": 1,
    }


def test_a_cascade_that_nobody_asked(run: Invoke) -> None:
    assert "no message of the last 7d was in a judge's band" in output_of(run("rules", "budget", "--judged", "7d"))
    both = ("--prevalence", "0.1", "--tpr", "1", "--fpr", "0", "--judged", "7d", "--json")
    said = json.loads(output_of(run("rules", "budget", *both)))
    assert said["cascade"]["probes"] == []
    assert said["per_million"]["alerts"] == pytest.approx(100_000)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rules", "test", "--since", "soon"), "since: 'soon' is no duration"),
        (("rules", "test", "--since", "0s"), "since: nothing was stored since now"),
        (("rules", "test", "--rules-file", "none.toml"), "rules_file: cannot read none.toml"),
        (("rules", "budget", "--prevalence", "2", "--tpr", "1", "--fpr", "0"), "prevalence: 2 is not a rate"),
        (("rules", "budget", "--prevalence", "0.1"), "prevalence, tpr, fpr: give all three; or --judged 7d"),
        (("rules", "budget", "--judged", "0s"), "judged: nothing was judged since now"),
    ],
)
def test_mistakes_are_named(run: Invoke, arguments: tuple[str, ...], said: str) -> None:
    failed = run(*arguments)
    assert failed.exit_code == 1
    assert str(failed.exception).startswith(said)


@pytest.mark.slow
def test_a_mistake_is_one_line_of_a_process(postgres_database: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[[rate]]\nname = "a"\nwindow = "1h"\n')
    assert refused(awry("rules", "check", tmp_path / "r.toml")).endswith('r.toml:1: rate "a": flagged: is missing')
    line = refused(awry("run", "--rules-file", tmp_path / "r.toml", "--database-url", postgres_database))
    assert "flagged: is missing" in line
