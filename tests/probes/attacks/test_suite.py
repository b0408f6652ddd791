"""The suite: planted scores give known tables; a tiny model runs it whole; reports are plain data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from probes.attacks import suite
from probes.attacks.base import text_of
from probes.attacks.families import materials_of, named
from probes.attacks.picture import plot_attacks
from probes.attacks.report import AttackReport, row_rate, write_to_card
from probes.attacks.suite import SuitePlan, run_suite, run_suites
from probes.card import Probe, load_probe, save_probe
from probes.errors import DataError
from probes.evaluation import rate
from probes.model.load import ChatModel, user_message
from probes.reading import Conversation
from tests.support.models.tiny import tiny_chat
from tests.support.stream.worker import make_probe

HARMFUL = [Conversation(user_message(f"zebra trouble number {n}")) for n in range(10)]
BENIGN = [Conversation(user_message(f"apple pie number {n}")) for n in range(20)]
POOL = ["quiet rain falls on the roof", "warm tea in the afternoon", "a green hat and a red scarf"]


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return tiny_chat()


@pytest.fixture(scope="module")
def probe(chat: ChatModel) -> Probe:
    return make_probe(chat, threshold=0.5)


Planted = Callable[[Callable[[str], float]], None]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    """Scores by a message's text, in place of a model's."""

    def plant(score: Callable[[str], float]) -> None:
        def scores(_chat: Any, probes: Sequence[Probe], given: Sequence[Conversation], **_: Any) -> NDArray[np.float64]:
            texts = ["\n".join(text_of(turn) for turn in each.turns) for each in given]
            return np.array([[score(text) for _ in probes] for text in texts])

        monkeypatch.setattr(suite, "score_conversations", scores)

    return plant


def test_the_table_is_what_the_scores_say(chat: ChatModel, probe: Probe, planted: Planted) -> None:
    """A reader of one word that is blind in capitals and takes one encoding for harm."""

    def score(text: str) -> float:
        return 1.0 if "zebra" in text or "%" in text else 0.0

    planted(score)
    plan = SuitePlan(named(["case", "percent", "suffix-polite", "history"]), wordings=100)
    report = run_suite(chat, probe, HARMFUL, BENIGN, pool=POOL, plan=plan)
    assert (report.plain_figures.tpr, report.plain_figures.fpr) == (rate(10, 10), rate(0, 20))
    assert report.plain_figures.auroc is not None
    assert report.plain_figures.auroc.value == 1
    found = {family.family: family for family in report.families}
    assert found["suffix-polite"].tpr == found["history"].tpr == rate(10, 10)
    assert found["suffix-polite"].fpr == rate(0, 20)
    assert found["percent"].fpr == rate(20, 20)
    assert found["percent"].highest_fpr is not None
    assert 0 < found["case"].tpr.value < 1, "lower case is read, upper case is not"
    assert found["case"].lowest_tpr is not None
    assert found["case"].lowest_tpr.rate.value == 0
    assert "lower case" not in found["case"].lowest_tpr.wording
    # The worst first; of equal ones the one with more false alarms.
    assert [family.family for family in report.families][:2] == ["case", "percent"]
    worst, held_out = report.worst(held_out=False), report.worst(held_out=True)
    assert worst is not None
    assert held_out is not None
    assert (worst.family, held_out.family) == ("case", "percent")
    assert report.messages == 30 * 5


def test_wordings_are_dealt_evenly_to_both_classes(chat: ChatModel, probe: Probe) -> None:
    family = named(["suffix-question"])[0]
    plan = SuitePlan((family,), wordings=5, wordings_per_row=2)
    wordings = family.wordings(materials_of(chat), seed=0, count=5)
    texts = suite.in_wordings(family, wordings, [*HARMFUL, *BENIGN], plan, "prompt", first=10)
    for rows, each in ((texts.row < 10, 4), (texts.row >= 10, 8)):
        assert np.bincount(texts.wording[rows]).tolist() == [each] * 5
    assert np.bincount(texts.row).tolist() == [2] * 30
    for n, row, made in zip(texts.wording, texts.row, texts.conversations, strict=True):
        given = text_of([*HARMFUL, *BENIGN][row].turns[0])
        assert text_of(made.turns[0]) == wordings[n].label.replace("{request}", given)


def test_what_gave_no_score_is_not_flagged_and_is_counted(chat: ChatModel, probe: Probe, planted: Planted) -> None:
    planted(lambda text: float("nan") if "zebra trouble number 3" in text else 1.0)
    report = run_suite(chat, probe, HARMFUL, BENIGN, pool=POOL, plan=SuitePlan(named(["suffix-polite"])))
    assert report.plain_figures.tpr == rate(9, 10)
    assert report.plain_figures.not_scored == report.families[0].not_scored == 1


def test_what_cannot_be_read_is_counted(chat: ChatModel, probe: Probe, planted: Planted) -> None:
    planted(lambda _: 0.0)
    plan = SuitePlan(named(["suffix-polite", "hex"]))
    report = run_suite(chat, probe, HARMFUL, BENIGN, pool=POOL, plan=plan)
    found = {family.family: (family.unreadable, family.unreadable_benign) for family in report.families}
    assert found["suffix-polite"] == (rate(0, 10), rate(0, 20))
    # Not under each wording: the words of a long carrier outweigh a short payload.
    for share in found["hex"]:
        assert share is not None
        assert share.value > 0.4
    assert report.plain_figures.unreadable == rate(0, 10)


def test_several_wordings_of_a_row_do_not_narrow_its_interval() -> None:
    once, thrice = row_rate([[True]] * 6 + [[False]] * 4), row_rate([[True] * 3] * 6 + [[False] * 3] * 4)
    assert once == thrice == rate(6, 10)
    between = row_rate([[True, False]] + [[True, True]] * 4)
    assert between.value == 0.9
    assert (between.low, between.high) == (rate(4, 5).low, rate(5, 5).high)


@pytest.mark.parametrize("per_row", [1, 2])
def test_a_tiny_model_runs_every_family(chat: ChatModel, probe: Probe, per_row: int, tmp_path: Path) -> None:
    names = "suffix,prefix,framing,history,system,forged,case,zero,homoglyph,base64,split,benign-around-50"
    plan = SuitePlan(named(names.split(",")), wordings_per_row=per_row, max_tokens=512)
    report = run_suite(chat, probe, HARMFUL[:5], BENIGN[:5], pool=POOL, plan=plan)
    assert len(report.families) == len(plan.families)
    assert all(family.messages == 10 * per_row and not family.not_scored for family in report.families)
    assert (report.digest, report.version, report.model) == (probe.digest, 1, "tiny-llama")
    again = run_suite(chat, probe, HARMFUL[:5], BENIGN[:5], pool=POOL, plan=plan)
    assert replace(again, made=report.made) == report
    assert AttackReport.of(json.loads(json.dumps(report.plain()))) == report
    plot_attacks(report, tmp_path / "deep" / "attacks.png")
    assert (tmp_path / "deep" / "attacks.png").read_bytes().startswith(b"\x89PNG")


def test_a_probe_of_responses_reads_them_changed(chat: ChatModel) -> None:
    probe = make_probe(chat, aggregation="mean(response)", threshold=-100.0)
    rows = [Conversation(user_message(f"question {n}"), f"the answer is {n}") for n in range(10)]
    plan = SuitePlan(named(["case", "suffix-polite"]))
    report = run_suite(chat, probe, rows[:5], rows[5:], pool=POOL, plan=plan)
    assert {family.family: family.changes for family in report.families} == {
        "case": "response",
        "suffix-polite": "prompt",
    }
    with pytest.raises(DataError, match="benign: message 1 has no response, and the probe reads responses"):
        run_suite(chat, probe, rows[:5], BENIGN, pool=POOL, plan=plan)


def test_rows_are_drawn_by_the_seed(chat: ChatModel, probe: Probe, planted: Planted) -> None:
    planted(lambda text: float("number 1" in text))

    def plain(seed: int) -> float:
        plan = SuitePlan(named(["case"]), seed=seed, max_rows=5)
        return run_suite(chat, probe, HARMFUL, BENIGN, pool=POOL, plan=plan).plain_figures.fpr.value

    assert plain(1) == plain(1)
    assert len({plain(seed) for seed in range(12)}) > 1


@pytest.mark.parametrize(
    ("harmful", "benign", "pool", "said"),
    [
        (HARMFUL[:4], BENIGN, POOL, "harmful: 4 messages; an interval needs at least 5"),
        (HARMFUL, [], POOL, "benign: 0 messages"),
        (HARMFUL, BENIGN, [*POOL, "apple pie number 3 "], "pool: some benign texts are among the benign messages"),
        ([Conversation([])] * 5, BENIGN, POOL, "harmful: message 1 has no turns"),
        (HARMFUL, BENIGN, [], "needs a pool of benign texts"),
    ],
)
def test_rows_that_do_not_do_are_named(
    chat: ChatModel, probe: Probe, harmful: list[Conversation], benign: list[Conversation], pool: list[str], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        run_suite(chat, probe, harmful, benign, pool=pool, plan=SuitePlan(named(["benign-after-50"])))


def test_probes_of_both_sides_are_refused(chat: ChatModel, probe: Probe) -> None:
    other = make_probe(chat, "other", aggregation="mean(response)")
    with pytest.raises(DataError, match="run them one at a time"):
        run_suites(chat, [probe, other], HARMFUL, BENIGN)


def test_a_card_takes_the_figures_and_keeps_its_digest(
    chat: ChatModel, probe: Probe, planted: Planted, tmp_path: Path
) -> None:
    planted(lambda text: float("zebra" in text))
    path = save_probe(make_probe(chat, threshold=0.5), tmp_path)
    before = load_probe(path)
    found = run_suite(chat, before, HARMFUL, BENIGN, pool=POOL, plan=SuitePlan(named(["case"]))).plain()
    write_to_card(path, before.digest, found, {"random": {"digest": before.digest, "queries": 7}})
    write_to_card(path, before.digest, None, {"gradient": {"digest": before.digest, "queries": 8}})
    after = load_probe(path)
    assert after.digest == before.digest
    assert after.card.attacks is not None
    assert AttackReport.of(after.card.attacks).plain() == found
    assert {name: search["queries"] for name, search in after.card.attacks["adaptive"].items()} == {
        "random": 7,
        "gradient": 8,
    }
    # Figures of another probe do not stay beside those of this one.
    write_to_card(path, "f" * 32, None, {})
    assert load_probe(path).card.attacks == {"adaptive": {}}


def test_what_is_no_report_is_refused() -> None:
    with pytest.raises(DataError, match="not a report of awry attack"):
        AttackReport.of({"probe": "x"})
