"""`--json`: one document alone on standard output, with the keys that docs/cli.md names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from monitor.cli.output import print_json
from tests.support import ROOT
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.alert_scenes import scored
from tests.support.cli import Invoke, all_commands

# Those that need a model have tests beside what they do.
STUDIES = ("direction", "transfer", "heads", "safety-heads", "planted-heads", "detectors")
OF_MODELS = {"check-server", "fit", "eval", "attack", "calibrate", "sweep", *(f"study {name}" for name in STUDIES)}
BUDGET = "rules budget --prevalence 1e-4 --tpr 0.4 --fpr 0.01 --judged 7d --per-day 100"
COMMANDS = (
    "alerts show ID",
    "alerts silences",
    "alerts precision",
    "rules check FILE",
    "rules test",
    BUDGET,
    "outbox list",
    "outbox route",
    "messages list",
    "tokens list",
    "config list",
    "config show",
    "adapters list",
    "probes list",
    "probes show harmful-request@2",
    "probes diff harmful-request@2 harmful-request@1",
    "models list",
)


def keys_of(document: Any) -> set[str]:
    """All keys in it, at any depth."""
    inner = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return set(document if isinstance(document, dict) else ()).union(*map(keys_of, inner))


def documented(command: str) -> set[str]:
    """What docs/cli.md says of it, in backquotes."""
    page = (ROOT / "docs" / "cli.md").read_text()
    (cell,) = re.findall(rf"^\| `awry {command}` \| (.*) \|$", page, re.MULTILINE)
    return set(re.findall(r"`([a-z_]+)`", cell))


@pytest.fixture
def filled(engine: Engine, run: Invoke, tmp_path: Path) -> str:
    """A database with something of everything; returns an alert's id."""
    opened, other = open_alerts(engine, [flagged(1, tenant="ümlaut"), flagged(2, probe="other")], ("pager",))
    scored(engine, 0, 3)
    (tmp_path / "r.toml").write_text('[[threshold]]\nname = "each"\n')
    assert run("alerts", "silence", "--tenant", "b*").exit_code == 0
    assert run("tokens", "create", "soar").exit_code == 0
    assert run("probes", "add", "harmful-request").exit_code == 0
    assert run("alerts", "verdict", str(other.alert_id), "false").exit_code == 0
    return str(opened.alert_id)


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_one_document(run: Invoke, filled: str, tmp_path: Path, command: str) -> None:
    words = [{"ID": filled, "FILE": str(tmp_path / "r.toml")}.get(word, word) for word in command.split()]
    done = run(*words, "--json", *(("--state-dir", tmp_path) if "models" in command else ()))
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    if document:
        assert keys_of(document) >= documented(" ".join(words[:2]))
    assert document or command == "models list"


def test_every_command_with_json_is_tried() -> None:
    with_json = {
        name.removeprefix("awry ")
        for name, command in all_commands().items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    tried = {" ".join(command.split()[:2]) for command in COMMANDS}
    assert with_json == tried | OF_MODELS | {"alerts", "alerts list", "check", "config check", "doctor"}


def test_the_values(run: Invoke, filled: str) -> None:
    shown = json.loads(run("alerts", "show", filled, "--json").stdout)
    assert shown["alert"]["id"] == filled
    assert shown["alert"]["tenant"] == "ümlaut"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", shown["alert"]["opened_at"])
    assert [row["event"] for row in shown["deliveries"]] == ["alert.opened"]
    outbox = json.loads(run("outbox", "list", "--json").stdout)
    assert [(row["destination"], row["state"]) for row in outbox["notifications"]] == [("pager", "pending")] * 2
    assert outbox["events"] == {"pending": 2, "delivered": 0, "dead": 0}
    row, other = json.loads(run("alerts", "precision", "--json").stdout)
    assert (row["not_judged"], row["precision"]) == (1, None)
    assert (other["probe"], other["false"], other["precision"]["value"]) == ("other", 1, 0.0)
    assert run("alerts", "verdict", filled, "true").exit_code == 0
    row, _ = json.loads(run("alerts", "precision", "--json").stdout)
    assert (row["true"], row["precision"]["value"], row["precision"]["n"]) == (1, 1.0, 1)
    (token,) = json.loads(run("tokens", "list", "--json").stdout)
    assert (token["name"], token["scope"], token["state"]) == ("soar", "read", "live")
    assert not any("secret" in key or "sha256" in key for key in token)


def test_a_backtest(run: Invoke, filled: str) -> None:
    document = json.loads(run("rules", "test", "--json").stdout)
    rule, tail = document["rules"]
    assert (tail["name"], tail["kind"], tail["notifications"]) == ("tail-drift", "monitor", 0)
    assert (document["days"], document["scores"], document["left_out"]) == (1.0, 3, 0)
    assert document["not_tried"] == ["unscored", "partial", "unreadable", "reading-gaps", "readings-silent"]
    assert (rule["name"], rule["notifications"], rule["busiest"]) == ("threshold", 1, {"threshold:drift:shop:smol": 1})


def test_the_budget_says_what_is_not_there_as_null(run: Invoke) -> None:
    document = json.loads(run(*BUDGET.split()[:-2], "--json").stdout)
    assert document["per_day"] is None
    assert set(document["per_million"]) == {"alerts", "true_alerts", "missed", "precision"}


def test_what_json_has_no_word_for_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [float("nan"), 1.5], "b": float("inf"), "c": "NaN"})
    assert capsys.readouterr().out == '{\n  "a": [\n    null,\n    1.5\n  ],\n  "b": null,\n  "c": "NaN"\n}\n'
