"""`awry attack` and `awry eval --attacks` on a tiny model: tables, JSON, pictures, cards, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from monitor.cli.render.attacks import print_attacks
from probes.attacks.report import AttackReport
from probes.card import load_probe
from tests.support.cli import invoke, message_of, output_of
from tests.support.stream.worker import lines

Words = tuple[str | Path, ...]
FAMILIES = "case,suffix-polite,benign-after-50,hex"


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Words:
    return ("--model", tiny_folder / "tiny-chat", "--state-dir", tmp_path)


@pytest.fixture
def card(tiny_folder: Path, tmp_path: Path) -> Path:
    """A card that may be written to; its probe flags everything."""
    for name in ("drift.json", "drift.safetensors"):
        shutil.copy(tiny_folder / name, tmp_path)
    return tmp_path / "drift.json"


@pytest.fixture
def files(tmp_path: Path) -> Words:
    harmful = [{"prompt": f"zebra trouble number {n}", "label": True} for n in range(8)]
    aligned = [{"prompt": f"apple pie number {n}", "label": False} for n in range(24)]
    # Both files hold both classes: what counts is decided by the label.
    mixed = lines(tmp_path / "mixed.jsonl", [*harmful, *aligned])
    return ("--harmful", mixed, "--benign", mixed)


def documents(words: Words) -> list[dict[str, Any]]:
    done = invoke("attack", *words, "--json")
    assert done.exit_code == 0, repr(done.exception)
    found: list[dict[str, Any]] = json.loads(done.stdout)["probes"]
    return found


def test_a_probe_under_attack(model: Words, card: Path, files: Words, tmp_path: Path) -> None:
    words = ("--probe", card, *files, *model, "--families", FAMILIES, "--out", tmp_path / "out")
    (found,) = documents(words)
    report = AttackReport.of(found["attacks"])
    assert (report.harmful, report.benign, report.pool) == (8, 12, 12)
    assert {family.family for family in report.families} == set(FAMILIES.split(","))
    assert report.plain_figures.tpr.value == 1
    assert json.loads((tmp_path / "out" / "drift-v1.attacks.json").read_text()) == found
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert load_probe(card).card.attacks is None

    said = output_of(invoke("attack", *words, "--write-card", "--rows", "5", "--wordings", "2", "--seed", "3"))
    assert "drift v1 under attack, flagged above" in said
    assert "5 harmful and 5 benign messages, 2 wording(s) each, seed 3" in said
    assert "worst of those that hold out: hex, TPR 1.00 [0.48, 1.00]" in said
    rows = [line.split()[0] for line in said.splitlines() if "[" in line and not line.startswith("worst")]
    assert rows[0] == "plain"
    assert sorted(rows[1:]) == sorted(FAMILIES.split(","))
    written = load_probe(card)
    assert written.card.attacks is not None
    assert written.digest == found["digest"]
    assert AttackReport.of(written.card.attacks).wordings_per_row == 2


def test_a_search_alone_and_beside_the_families(model: Words, card: Path, files: Words, tmp_path: Path) -> None:
    words = ("--probe", card, *files, *model, "--out", tmp_path / "out", "--queries", "12", "--write-card")
    (found,) = documents((*words, "--adaptive", "random"))
    assert "attacks" not in found
    assert [point["queries"] for point in found["adaptive"]["curve"]] == [0, 10, 12]
    assert (tmp_path / "out" / "adaptive-random.png").is_file()
    said = output_of(invoke("attack", *words, "--adaptive", "gradient", "--families", "case"))
    assert "drift v1 against a gradient search on 8 messages" in said
    assert "not tried: words before the message, rewording" in said
    attacks = load_probe(card).card.attacks
    assert attacks is not None
    assert set(attacks["adaptive"]) == {"random", "gradient"}
    assert [family["family"] for family in attacks["families"]] == ["case"]


def test_two_probes_are_compared(model: Words, card: Path, files: Words, tmp_path: Path) -> None:
    other = json.loads(card.read_text()) | {"version": 2}
    other["calibration"]["threshold"] = 10.0**6
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "drift.json").write_text(json.dumps(other))
    shutil.copy(card.with_suffix(".safetensors"), tmp_path / "new")
    both = ("--probe", card, "--probe", tmp_path / "new" / "drift.json")
    found = documents((*both, *files, *model, "--families", "case", "--out", tmp_path / "out"))
    assert [(each["version"], each["attacks"]["plain"]["tpr"]["value"]) for each in found] == [(1, 1.0), (2, 0.0)]
    assert found[0]["digest"] != found[1]["digest"]
    twice = ("attack", "--probe", card, "--probe", card, *files, *model)
    assert message_of(invoke(*twice)) == "probe: two have the same name and version; give each once"


def test_an_evaluation_with_attacks(model: Words, card: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{'zebra' if n % 3 else 'apple'} {n}", "label": bool(n % 3)} for n in range(90)]
    labelled = lines(tmp_path / "labelled.jsonl", rows)
    words = ("eval", "--probe", card, "--labelled", labelled, "--png", tmp_path / "x.png", *model)
    suite = ("--attacks", "--families", "case,hex")
    done = invoke(*words, *suite, "--json")
    assert done.exit_code == 0, repr(done.exception)
    found = json.loads(done.stdout)
    assert found["attacks"]["benign"] == 15
    assert found["attacks"]["pool"] == 15
    assert (tmp_path / "x.attacks.png").is_file()
    assert "under attack" in output_of(invoke(*words, *suite))
    assert "under attack" not in output_of(invoke(*words))
    assert message_of(invoke(*words, "--families", "case")) == "families: of the attack suite; give --attacks too"


def test_mistakes_are_named(model: Words, card: Path, files: Words, tmp_path: Path) -> None:
    start = ("attack", "--probe", card, *model)
    empty = lines(tmp_path / "empty.jsonl", [])
    few = lines(tmp_path / "few.jsonl", [{"prompt": f"apple {n}"} for n in range(7)])
    bad = lines(tmp_path / "bad.jsonl", [{"prompt": f"zebra {n}", "label": True} for n in range(9)])
    good = lines(tmp_path / "good.jsonl", [{"prompt": f"apple {n}", "label": False} for n in range(40)])
    for words, said in (
        ((*files, "--families", "base46"), "families: 'base46' is none of suffix-language, "),
        ((*files, "--adaptive", "guess"), "adaptive: 'guess' is none of random, gradient"),
        (("--harmful", empty, "--benign", good), f"{empty}: holds no message"),
        (("--harmful", bad, "--benign", tmp_path / "nowhere.jsonl"), f"{tmp_path / 'nowhere.jsonl'}: cannot be read"),
        (("--harmful", bad, "--benign", few), "benign: few.jsonl has 7 different messages; at least 20 are needed"),
        (("--harmful", bad, "--benign", bad), "benign: all messages of bad.jsonl are labelled misaligned"),
        (("--harmful", good, "--benign", good), "harmful: all messages of good.jsonl are labelled aligned"),
        (("--harmful", few, "--benign", good, "--write-card"), "write_card: give --probe as the path of a card"),
    ):
        given = ("attack", "--probe", "harmful-request", *model) if "--write-card" in words else start
        assert message_of(invoke(*given, *words)).startswith(said), said


def test_a_table_without_auroc_or_wordings(
    capsys: pytest.CaptureFixture[str], card: Path, model: Words, files: Words, tmp_path: Path
) -> None:
    (found,) = documents(("--probe", card, *files, *model, "--families", "case", "--out", tmp_path / "out"))
    for figures in (found["attacks"]["plain"], *found["attacks"]["families"]):
        figures["auroc"] = None
        figures["not_scored"] = 2
    capsys.readouterr()
    print_attacks(AttackReport.of(found["attacks"]))
    assert "4 messages gave no score" in capsys.readouterr().out
