"""The page of claims, made of what the real studies wrote about tiny models; then each rule, figure by figure."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from probes.errors import DataError
from probes.organisms.planted.evaluation import fit_questions
from probes.studies.direction import dose
from probes.studies.framework.controls import WRONG_LAYER
from probes.studies.framework.result import StudyResult
from probes.studies.framework.verdict import FEWEST_DRAWS, ClaimOutcome, Support, Verdict
from probes.studies.head_steering.verdict import CHOSEN, LAYER, PLAIN_NAME, PROBE_HEADS, RANDOM_HEADS, WITHOUT_BEST
from probes.studies.safety_heads.run import run_safety_heads
from probes.studies.summary import page, write_study_page
from probes.studies.summary.first_screen import first_screen
from probes.studies.summary.page import Row
from probes.studies.summary.results import Finding, decide, read_results
from probes.studies.transfer.means import NULLS
from tests.support.models.planted_study import messages
from tests.support.models.refusing import NO, refusing_chat
from tests.support.models.studies import (
    HARMFUL,
    HARMLESS,
    HEADS_MESSAGES,
    SAFETY_COMMAND,
    SAFETY_PLAN,
    DirectionStudy,
    HeadsStudy,
    SafetyStudy,
    TransferStudy,
)

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
CLAIMS = page.load_claims()
FEW_REQUESTS = replace(SAFETY_PLAN, draws=1, interval=0.45, max_new_tokens=4, resamples=20)
BY_ID = {claim.id: claim for claim in CLAIMS.claims}


@pytest.fixture(scope="module")
def made(
    direction_study: DirectionStudy,
    heads_study: HeadsStudy,
    safety_study: SafetyStudy,
    transfer_study: TransferStudy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A documents' folder with the page and the studies below it."""
    docs = tmp_path_factory.mktemp("docs")
    studies = docs / "studies"
    for name, study in (
        ("direction-x", direction_study),
        ("heads-x", heads_study),
        ("safety-heads-x", safety_study),
        ("transfer", transfer_study),
    ):
        shutil.copytree(study.folder, studies / name)
    base = studies / "safety-heads-base"
    base.mkdir()
    run_safety_heads(
        refusing_chat(refuses=False), HARMFUL[:24], HARMLESS[:24], base, FEW_REQUESTS, metric=NO, command=SAFETY_COMMAND
    )
    write_study_page(studies, docs / "study.md")
    return docs


@pytest.fixture(scope="module")
def results(made: Path) -> dict[str, StudyResult]:
    return {r.name: r for r in read_results(made / "studies")}


@pytest.fixture(scope="module")
def text(made: Path) -> str:
    return (made / "study.md").read_text()


def rows_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]


def row(claim: str, *results: StudyResult) -> Row:
    return page.row_of(BY_ID[claim], CLAIMS.commands, results)


def changed(result: StudyResult, **edits: Any) -> StudyResult:
    """A copy with other figures: `a__b=1` sets measured["a"]["b"]."""
    data: dict[str, Any] = copy.deepcopy(dict(result.measured))
    for path, value in edits.items():
        *way, last = path.split("__")
        at = data
        for key in way:
            at = at[key]
        at[last] = value
    return replace(result, measured=data)


Figure = dict[str, float]


def figure(value: float, half: float = 0.05, n: int = 50) -> Figure:
    return {"value": value, "low": value - half, "high": value + half, "n": n}


NOTHING = figure(0.0)


# The page


def test_the_first_line_is_the_caveat_of_scale(text: str) -> None:
    first = text.splitlines()[0]
    for said in ("planted, refusing-llama", "0.9M", "synthetic", "not how real large models behave"):
        assert said in first
    assert "SmolLM2" not in first  # no result of it is among these


def test_every_claim_is_there_exactly_once(text: str) -> None:
    assert len(rows_of(text)) == len(CLAIMS.claims) == len(BY_ID)
    for claim in CLAIMS.claims:
        assert text.count(f"| {claim.claim} |") == 1
    for paper in CLAIMS.papers:
        assert text.count(f"## {paper.title} (arXiv {paper.id})") == 1
        assert {c.paper for c in CLAIMS.claims} == {p.id for p in CLAIMS.papers}


def test_every_rule_decides_a_claim_and_every_claim_says_where_it_stands(text: str) -> None:
    assert sorted(c.rule for c in CLAIMS.claims if c.rule) == sorted(page.RULES)
    for claim in CLAIMS.claims:
        assert claim.figure
        assert claim.place
        assert (claim.rule is None) == (claim.study is None) == (claim.not_testable is not None)
    for rule in page.RULES.values():
        assert text.count(f"when {rule.when}.") == 1


def test_links_lead_to_files_that_are_there(made: Path, text: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", text)
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert sorted(Path(p).name for p in pictures) == sorted(p.name for p in made.glob("studies/*/*.png"))
    assert len(pictures) == 11
    assert all((made / link).is_file() for link in links)
    probes = {str(p.relative_to(made).with_suffix(".json")) for p in made.glob("studies/*/*.safetensors")}
    assert {Path(p).parent.name for p in probes} == {"heads-x", "safety-heads-x", "transfer"}
    assert probes == {link for link in links if link.endswith(".json") and not link.endswith("RESULT.json")}
    headings = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings == {p.name for p in (made / "studies").iterdir()}


def test_planted_models_are_called_synthetic_wherever_they_stand(text: str) -> None:
    for line in rows_of(text):
        for name in ("transfer", "direction-x", "heads-x"):
            assert f"[{name}](#{name})," not in line
    assert "[transfer](#transfer) (synthetic), " in text
    assert "[safety-heads-x](#safety-heads-x), " in text
    assert text.count("**Synthetic:**") == 3


def test_verdicts_commands_and_what_was_left_out_are_told(text: str, results: dict[str, StudyResult]) -> None:
    assert results["direction-x"].measured["verdict"]["sentence"] in text
    assert results["transfer"].measured["verdict"]["sentence"] in text
    assert all(f"- {reason}" in text for reason in results["transfer"].measured["verdict"]["reasons"][1:])
    assert "Probes that carry a recipe, of 2 receivers: " in text
    assert "- No probe of harmful requests: labels:" in text  # 24 requests a class are too few for three splits
    assert results["heads-x"].measured["verdict"]["reasons"][1] in text
    for name, verdict in results["safety-heads-x"].measured["verdicts"].items():
        assert verdict["sentence"].split(": ", 1)[1] in text, name
    assert "Made by `the command`." in text
    assert "- transfer: planted-x: it does not hold" in text
    assert f"Made by `{SAFETY_COMMAND}`." in text
    assert {line.replace("\\|", "").count("|") for line in rows_of(text)} == {8}


def test_no_message_is_on_the_page(text: str) -> None:
    asked = [r.messages[0]["content"] for r in HARMFUL]
    for said in (*messages(112, 0), *fit_questions(40), *HEADS_MESSAGES.test, *asked):
        assert said not in text


def test_the_page_is_the_same_each_time(made: Path, text: str, tmp_path: Path) -> None:
    write_study_page(made / "studies", made / "again.md")
    assert (made / "again.md").read_text() == text
    write_study_page(made / "studies", tmp_path / "elsewhere.md")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (tmp_path / "elsewhere.md").read_text())
    assert all((tmp_path / p).is_file() for p in pictures)


def test_what_planted_truths_give(results: dict[str, StudyResult]) -> None:
    found = {c.id: row(c.id, *(r for r in results.values() if r.study == c.study)).outcome for c in CLAIMS.claims}
    assert found["separation"] == "reproduced"
    assert found["last-layer"] == "not reproduced"  # every block separates
    assert found["control-separation"] == "not reproduced"
    assert found["content"] == "reproduced"
    assert found["transfer-lowers"] == "reproduced"  # both models hold the same truth
    assert found["transfer-non-specific"] == "not reproduced"
    assert found["asymmetry"] == "not reproduced"
    assert found["wanted-rise"] == "reproduced"
    assert found["these-heads"] == "reproduced"
    assert found["few-heads"] == "not reproduced"
    assert found["top-head"] == found["sahara"] == "reproduced"
    assert found["safety-specific"] == "not testable here"  # two draws are no test, and the other refuses nothing
    assert found["ua-over-sc"] == "not reproduced"
    for claim in ("strongest-pairs", "large-model-rates", "cost", "attack-rates"):
        assert found[claim] == "not testable here"


# Results that are missing or broken


def test_a_study_that_was_not_run_is_said_with_its_command(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "studies" / "heads-x", tmp_path / "studies" / "heads-x")
    write_study_page(tmp_path / "studies", tmp_path / "study.md")
    text = (tmp_path / "study.md").read_text()
    for claim in CLAIMS.claims:
        (line,) = (found for found in rows_of(text) if f"| {claim.claim} |" in found)
        if claim.study in ("direction", "transfer", "safety"):
            assert f"| not run: `{CLAIMS.commands[claim.study]}` | none | " in line
            assert line.endswith("| **not measured** |")
    assert f"Not run yet:\n\n- `{CLAIMS.commands['direction']}`" in text


def test_with_no_study_at_all_there_is_still_a_page(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    write_study_page(tmp_path / "studies", tmp_path / "study.md")
    text = (tmp_path / "study.md").read_text()
    assert "None was run yet." in text
    assert "**reproduced**" not in text
    with pytest.raises(DataError, match="is no folder"):
        write_study_page(tmp_path / "missing", tmp_path / "study.md")
    with pytest.raises(DataError, match="cannot write"):
        write_study_page(tmp_path / "studies", tmp_path / "missing" / "study.md")


# A heads study whose figures are gone.
EMPTY = (
    '{"study": "heads", "format": 2, "name": "x", "created": "", "command": "", "model": {}, "data": {}, "plan": {}, '
    '"verdict": %s, "figures": {}, "probes": []}'
)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("{not json", "cannot be read as JSON"),
        ("\xff\xfe", "cannot be read as JSON"),
        ("[1, 2]", "holds no JSON object"),
        ('{"format": "awry-heads/9"}', "was made by an older version"),
        (EMPTY % '{"label": "noise"}', "as a heads study it lacks '"),
        (EMPTY % '{"label": "splendid"}', "of format 2 it does not fit"),
        ('{"format": 2}', "of format 2 it lacks 'study'"),
    ],
)
def test_a_broken_result_is_named_and_nothing_is_written(made: Path, tmp_path: Path, written: str, reason: str) -> None:
    broken = tmp_path / "studies" / "broken" / "RESULT.json"
    shutil.copytree(made / "studies" / "heads-x", tmp_path / "studies" / "heads-x")
    broken.parent.mkdir()
    broken.write_bytes(written.encode("latin-1"))
    with pytest.raises(DataError, match=reason) as error:
        write_study_page(tmp_path / "studies", tmp_path / "study.md")
    assert str(broken) in str(error.value)
    assert not (tmp_path / "study.md").exists()


@pytest.mark.parametrize("lost", ["separation", "dose", "verdict", "prediction"])
def test_a_result_that_lost_a_part_is_named(made: Path, tmp_path: Path, lost: str) -> None:
    path = tmp_path / "studies" / "direction-x" / "RESULT.json"
    shutil.copytree(made / "studies" / "direction-x", path.parent)
    data = json.loads(path.read_text())
    del (data if lost in data else data["figures"])[lost]
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=lost) as error:
        write_study_page(tmp_path / "studies", tmp_path / "study.md")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("line", ['rule = "separation"', 'study = "direction"', 'paper = "2606.20225"'])
def test_a_claims_file_that_says_too_little_is_refused(tmp_path: Path, line: str) -> None:
    broken = tmp_path / "claims.toml"
    broken.write_text(page.CLAIMS.read_text().replace(line, "", 1))
    with pytest.raises(DataError, match=re.escape(str(broken))):
        page.load_claims(broken)


# Outcomes


def test_one_outcome_is_made_of_all_answers() -> None:
    def of(*answers: Support) -> ClaimOutcome:
        return decide([Finding(a, "") for a in answers])

    yes, no, unsure = Support.YES, Support.NO, Support.UNSURE
    untestable, unmeasured = Support.UNTESTABLE, Support.UNMEASURED
    assert of(yes, yes, unmeasured, untestable) == ClaimOutcome.REPRODUCED
    assert of(no) == ClaimOutcome.NOT_REPRODUCED
    assert of(yes, no) == of(unsure) == of(yes, unsure) == ClaimOutcome.MIXED
    assert of(untestable, unmeasured) == ClaimOutcome.NOT_TESTABLE
    assert of(unmeasured) == of() == ClaimOutcome.NOT_MEASURED


def test_two_studies_that_disagree_are_mixed_and_both_are_shown(results: dict[str, StudyResult]) -> None:
    one = results["direction-x"]
    other = replace(changed(one, separation=with_accuracy(one, 0.6)), name="direction-y")
    found = row("separation", one, other)
    assert found.outcome == "mixed"
    assert found.measured[0].startswith("[direction-x](#direction-x) (synthetic), yes: 1.00")
    assert found.measured[1].startswith("[direction-y](#direction-y) (synthetic), no: 0.60")


def with_accuracy(result: StudyResult, *last_blocks: float) -> list[dict[str, Any]]:
    """Separation rows whose last blocks have these accuracies."""
    rows: list[dict[str, Any]] = copy.deepcopy(result.measured["separation"])
    blocks = [r for r in rows if r["site"].startswith("residual")]
    for block, value in zip(blocks[-len(last_blocks) :], last_blocks, strict=True):
        block["accuracy"] = figure(value)
    return rows


def with_tested(result: StudyResult, **figures: tuple[float, float]) -> list[dict[str, Any]]:
    """Rows of the dose report with other figures: `untouched=(behaviour, good)` or `paper=...`."""
    names = {"untouched": dose.UNTOUCHED, "paper": dose.PAPER}
    rows: list[dict[str, Any]] = copy.deepcopy(result.measured["dose"]["test"])
    for which, (behaviour, good) in figures.items():
        next(r for r in rows if r["name"] == names[which]).update(behaviour=figure(behaviour), good=figure(good))
    return rows


def test_separation_by_layer(results: dict[str, StudyResult]) -> None:
    one = results["direction-x"]

    def outcome(claim: str, *blocks: float) -> ClaimOutcome:
        return row(claim, changed(one, separation=with_accuracy(one, *blocks))).outcome

    assert outcome("separation", 0.95) == "reproduced"
    assert outcome("separation", 0.94) == "not reproduced"
    assert outcome("last-layer", 0.6, 0.7, 0.9) == "reproduced"
    assert outcome("last-layer", 0.6, 0.7, 0.64) == "not reproduced"
    assert outcome("last-layer", 0.6, 0.6, 0.652) == "reproduced"
    assert outcome("last-layer", 0.6, 0.85, 0.9) == "mixed"
    assert outcome("last-layer", 0.6, 0.87, 0.9) == "not reproduced"
    assert outcome("last-layer", 0.9, 0.9, 0.9) == "not reproduced"
    assert outcome("last-layer", 0.57, 1.0, 1.0) == "not reproduced"


def test_a_controls_separation(results: dict[str, StudyResult]) -> None:
    one = results["direction-x"]
    rows: list[dict[str, Any]] = copy.deepcopy(one.measured["separation"])
    last = [r for r in rows if r["site"].startswith("residual")][-1]
    last["control"]["accuracy"] = figure(0.52)
    assert row("control-separation", changed(one, separation=rows)).outcome == "reproduced"
    last["control"]["accuracy"] = figure(0.6)
    assert row("control-separation", changed(one, separation=rows)).outcome == "not reproduced"
    # Few rows that reach 0.5 show no absence of a difference.
    last["control"]["accuracy"] = figure(0.75, half=0.3)
    assert row("control-separation", changed(one, separation=rows)).outcome == "mixed"
    last["control"] = None
    assert row("control-separation", changed(one, separation=rows)).outcome == "not measured"
    labelled = changed(one, kind="messages")
    for claim in ("separation", "last-layer", "control-separation"):
        assert row(claim, labelled).outcome == "not measured"


@pytest.mark.parametrize(
    ("untouched", "paper", "outcome"),
    [
        ((0.7, 0.2), (0.3, 0.6), "reproduced"),
        ((0.7, 0.2), (0.65, 0.25), "not reproduced"),
        ((0.7, 0.2), (0.0, 0.2), "mixed"),  # the text breaks
        ((0.1, 0.8), (0.0, 0.9), "not testable here"),
    ],
)
def test_steering_in_the_papers_setting(
    results: dict[str, StudyResult], untouched: tuple[float, float], paper: tuple[float, float], outcome: str
) -> None:
    one = results["direction-x"]
    rows = with_tested(one, untouched=untouched, paper=paper)
    assert row("within-steering", changed(one, dose__test=rows)).outcome == outcome
    without = [r for r in rows if r["name"] != dose.PAPER]
    assert row("within-steering", changed(one, dose__test=without)).outcome == "not measured"


def test_specificity_and_content_follow_the_studys_differences(results: dict[str, StudyResult]) -> None:
    good, small, wide = figure(0.3), figure(0.05), figure(0.3, half=0.4)

    def outcome(
        claim: str, differences: Mapping[str, Figure] = MappingProxyType({}), label: Verdict = Verdict.WORKS_SPECIFIC
    ) -> ClaimOutcome:
        edits = {f"verdict__differences__{k}": v for k, v in differences.items()}
        one = changed(results["direction-x"], verdict__differences={"random": good, "fall": good, "gain": good})
        return row(claim, changed(one, verdict__label=label, **edits)).outcome

    assert outcome("within-specific", {"orthogonal": good}) == "reproduced"
    assert outcome("within-specific", {"orthogonal": small}) == "not reproduced"
    assert outcome("within-specific", {WRONG_LAYER: wide}) == "mixed"
    assert outcome("within-specific", label=Verdict.NOISE) == "not reproduced"
    assert outcome("within-specific", label=Verdict.NO_EFFECT) == "not testable here"
    # What the content control does is a row of its own.
    assert outcome("within-specific", {dose.CONTENT: small}, label=Verdict.WORKS_NOT_SPECIFIC) == "reproduced"
    assert outcome("content", {dose.CONTENT: small}) == "not reproduced"
    assert outcome("content", {dose.CONTENT: good}) == "reproduced"
    assert outcome("content", {dose.CONTENT: wide}) == "mixed"
    assert outcome("content", {dose.CONTENT: good}, label=Verdict.NOISE) == "not testable here"
    assert outcome("content") == "not measured"


def of_three_models(result: StudyResult) -> StudyResult:
    """The same result, as if its means were over pairs of three models."""
    subjects = result.measured["subjects"]
    return changed(result, subjects=[*subjects, subjects[0] | {"name": "third"}])


def test_transfer_over_pairs_of_many_models(results: dict[str, StudyResult]) -> None:
    def outcome(claim: str, **figures: Figure) -> ClaimOutcome:
        edits = {f"overall__ablate__across__{k}": v for k, v in figures.items()}
        return row(claim, changed(of_three_models(results["transfer"]), **edits)).outcome

    works = {"own_gain": figure(0.6), "drop": figure(0.4), "gain": figure(0.4), "over_receiver_random": figure(0.3)}
    random = {"drop_receiver_random": figure(0.1)}
    alike = {"drop_receiver_random": figure(0.4)}
    assert outcome("transfer-lowers", **works) == "reproduced"
    assert outcome("transfer-lowers", **works | {"drop": figure(0.0)}) == "not reproduced"
    assert outcome("transfer-lowers", **works | {"drop": figure(0.1)}) == "mixed"  # as much as 0.15 is not excluded
    assert outcome("transfer-lowers", **works | {"gain": figure(0.0)}) == "mixed"
    assert outcome("transfer-lowers", **works | {"own_gain": figure(0.1)}) == "not testable here"
    assert outcome("transfer-non-specific", **works | random) == "not reproduced"
    assert outcome("transfer-non-specific", **works | alike | {"over_receiver_random": NOTHING}) == "reproduced"
    assert outcome("transfer-non-specific", **works | random | {"over_receiver_random": NOTHING}) == "mixed"
    assert outcome("transfer-non-specific", **works | alike) == "mixed"
    assert outcome("transfer-non-specific", **works | random | {"drop": figure(0.0)}) == "not testable here"
    assert outcome("own-beats-mapped", **works) == "reproduced"
    assert outcome("own-beats-mapped", **works | {"gain": figure(0.58)}) == "mixed"
    assert outcome("own-beats-mapped", **works | {"gain": figure(0.7)}) == "not reproduced"


def test_of_two_models_each_pair_is_judged_by_its_own_questions(results: dict[str, StudyResult]) -> None:
    one = results["transfer"]
    names = [subject["name"] for subject in one.measured["subjects"]]
    works: dict[str, Any] = {"own_gain": 0.6, "drop": figure(0.4), "gain": figure(0.4)}

    def row_of(claim: str, *edits: dict[str, Any], own: float = 0.6) -> Row:
        subjects, pairs = (copy.deepcopy(one.measured[part]) for part in ("subjects", "pairs"))
        for subject in subjects:
            subject["modes"]["ablate"]["own"]["good"] = figure(own)
        for pair, edit in zip(pairs, edits, strict=True):
            pair["modes"]["ablate"] |= works | edit
        return row(claim, changed(one, subjects=subjects, pairs=pairs))

    nothing = {"drop": figure(0.0), "gain": figure(0.0)}
    fails = {"own_gain": 0.0}
    assert row_of("transfer-lowers", {}, {}).outcome == "reproduced"
    assert row_of("transfer-lowers", nothing, nothing).outcome == "not reproduced"
    assert row_of("transfer-lowers", {}, nothing).outcome == "mixed"  # the pairs disagree
    # A receiver whose own direction fails says nothing, and the other pair alone decides.
    assert row_of("transfer-lowers", fails, nothing).outcome == "not reproduced"
    assert row_of("transfer-lowers", fails, fails).outcome == "not testable here"
    words = row_of("transfer-lowers", {}, nothing).measured[0]
    assert all(f"{a} to {b} (ablate, n = 50)" in words for a, b in (names, names[::-1]))
    assert row_of("transfer-lowers", {}, nothing).power[0].startswith("from ")

    alike = {"drop_controls": {"random_source": 0.4, "shuffled": 0.4, "receiver_random": 0.4}}
    apart = {"drop_controls": {"random_source": 0.0, "shuffled": 0.0, "receiver_random": 0.0}}
    over = {kind: {"over": dict.fromkeys(NULLS, value)} for kind, value in (("none", NOTHING), ("much", figure(0.3)))}
    assert row_of("transfer-non-specific", *[alike | over["none"]] * 2).outcome == "reproduced"
    assert row_of("transfer-non-specific", *[apart | over["much"]] * 2).outcome == "not reproduced"
    assert row_of("transfer-non-specific", alike | over["none"], apart | over["much"]).outcome == "mixed"
    assert row_of("transfer-non-specific", nothing, nothing).outcome == "not testable here"

    few, many = ({"mapped": {"good": figure(value)}} for value in (0.1, 0.9))
    assert row_of("own-beats-mapped", few, few).outcome == "reproduced"
    assert row_of("own-beats-mapped", many, many).outcome == "not reproduced"
    assert row_of("own-beats-mapped", few, many).outcome == "mixed"
    assert row_of("own-beats-mapped", few, few, own=0.15).outcome == "mixed"


def test_transfer_is_judged_in_the_papers_mode_where_that_works_at_all(results: dict[str, StudyResult]) -> None:
    one = of_three_models(results["transfer"])
    both = changed(one, plan__modes=["ablate", "subtract"])
    for part in ("overall", "asymmetry"):
        both = changed(both, **{f"{part}__subtract": copy.deepcopy(one.measured[part]["ablate"])})
    assert "2 pairs (subtract)" in row("transfer-lowers", both).measured[0]
    fails = changed(both, overall__subtract__across__own_gain=figure(0.1))
    assert "2 pairs (ablate)" in row("transfer-lowers", fails).measured[0]
    for claim in ("transfer-lowers", "transfer-non-specific", "own-beats-mapped", "asymmetry"):
        nothing = changed(fails, overall__ablate__across__own_gain=figure(0.0))
        assert row(claim, nothing).outcome == "not testable here"


@pytest.mark.parametrize(
    ("two", "outcome"),
    [(0.3, "reproduced"), (0.15, "mixed"), (0.05, "not reproduced"), (None, "not measured")],
)
def test_asymmetry(results: dict[str, StudyResult], two: float | None, outcome: str) -> None:
    edits = {"mean_difference_of_two_ways": two, "expected_from_sampling": 0.1}
    one = changed(results["transfer"], **{f"asymmetry__ablate__{k}": v for k, v in edits.items()})
    assert row("asymmetry", one).outcome == outcome


@pytest.mark.parametrize(
    ("claim", "mark"),
    [
        ("few-heads", "few heads survive the re-test (at most 3 %)"),
        ("wanted-rise", "wanted choices rise by 30 points"),
        ("probe-heads", "beats heads ranked by a probe"),
        ("layer-vector", "beats a layer-level vector"),
    ],
)
def test_marks_of_a_heads_study_decide(results: dict[str, StudyResult], claim: str, mark: str) -> None:
    one = results["heads-x"]
    assert mark in one.measured["paper"]
    for seen, outcome in ((True, "reproduced"), (False, "not reproduced")):
        assert row(claim, changed(one, **{f"paper__{mark}": seen})).outcome == outcome


def test_a_grid_that_ends_while_the_effect_rises_shows_no_inverted_u(results: dict[str, StudyResult]) -> None:
    def outcome(effects: list[float], undefined: float = 0.0, seen: bool = False) -> ClaimOutcome:
        points = [{"effect": figure(e), "undefined": figure(undefined)} for e in effects]
        curve = results["heads-x"].measured["alpha_curve"] | {
            "alphas": [-float(i) for i in range(len(effects))],
            "heldout": points,
        }
        mark = {"paper__inverted U over alpha": seen}
        return row("inverted-u", changed(results["heads-x"], alpha_curve=curve, **mark)).outcome

    assert outcome([0.1, 0.5, 0.2], seen=True) == "reproduced"
    assert outcome([0.5, 0.3, 0.2]) == "not reproduced"
    assert outcome([0.1, 0.2, 0.5]) == "not measured"
    assert outcome([0.1, 0.2, 0.5], undefined=0.5) == "not reproduced"
    assert outcome([0.1, 0.2]) == "not measured"


def test_a_control_that_was_not_run_is_not_beaten(results: dict[str, StudyResult]) -> None:
    one = results["heads-x"]
    for claim, control in (("probe-heads", PROBE_HEADS), ("layer-vector", LAYER)):
        left = {name: f for name, f in one.measured["heldout"].items() if name != control}
        assert row(claim, changed(one, heldout=left)).outcome == "not measured"
    left = {name: f for name, f in one.measured["heldout"].items() if not name.startswith("random")}
    assert row("these-heads", changed(one, heldout=left)).outcome == "not measured"
    more: dict[str, Any] = copy.deepcopy(one.measured["heldout"])
    more[f"{RANDOM_HEADS} 0"]["effect"] = figure(99.0)
    marks = {"paper__beats random heads": False, "paper__beats random directions": True}
    assert row("these-heads", changed(one, heldout=more, **marks)).outcome == "mixed"
    # Too few draws, none of which does as much, are no test whatever an old mark says.
    few = {n: f for n, f in one.measured["heldout"].items() if not n.startswith("random") or n.endswith(" 0")}
    assert row("these-heads", changed(one, heldout=few, **marks)).outcome == "not measured"


@pytest.mark.parametrize(
    ("claim", "mark"),
    [("probe-heads", "beats heads ranked by a probe"), ("layer-vector", "beats a layer-level vector")],
)
def test_what_random_directions_do_as_well_is_not_reproduced(
    results: dict[str, StudyResult], claim: str, mark: str
) -> None:
    one = changed(results["heads-x"], **{f"paper__{mark}": True})
    assert row(claim, one).outcome == "reproduced"
    assert row(claim, changed(one, verdict__label=Verdict.NOISE)).outcome == "mixed"


def test_the_best_head_left_out(results: dict[str, StudyResult]) -> None:
    one = results["heads-x"]
    held = {n: f for n, f in one.measured["heldout"].items() if n != WITHOUT_BEST}
    assert row("best-head", changed(one, heldout=held)).outcome == "not measured"
    held[WITHOUT_BEST] = held[CHOSEN]
    for left, outcome in ((True, "reproduced"), (False, "not reproduced")):
        marks = one.measured["paper"] | {"most is left without the best head": left}
        assert row("best-head", changed(one, heldout=held, paper=marks)).outcome == outcome


def test_open_answers(results: dict[str, StudyResult]) -> None:
    def outcome(
        claim: str,
        heads: Figure,
        layer: Figure = NOTHING,
        coherent: float = 0.9,
        aim: str = "away",
        before: float = 0.5,
    ) -> ClaimOutcome:
        opened = copy.deepcopy(results["heads-x"].measured["open"])
        opened[CHOSEN].update(behaviour_change=heads, coherent=figure(coherent))
        opened[PLAIN_NAME].update(behaviour=figure(before), coherent=figure(0.9))
        opened[LAYER]["behaviour_change"] = layer
        return row(claim, changed(results["heads-x"], open=opened, plan__search__aim=aim)).outcome

    assert outcome("carries-over", figure(-0.4)) == "reproduced"
    assert outcome("carries-over", figure(0.4)) == "not reproduced"
    assert outcome("carries-over", figure(0.4), aim="towards") == "reproduced"
    assert outcome("carries-over", figure(-0.02)) == "not reproduced"
    assert outcome("carries-over", figure(-0.4), coherent=0.5) == "mixed"
    for claim in ("carries-over", "dissociation"):
        assert outcome(claim, figure(-0.1), before=0.1) == "not testable here"
        assert outcome(claim, figure(0.0), before=0.9, aim="towards") == "not testable here"
    assert outcome("dissociation", figure(-0.4)) == "reproduced"
    assert outcome("dissociation", figure(-0.4), layer=figure(-0.35)) == "mixed"
    assert outcome("dissociation", figure(-0.4), layer=figure(-0.5)) == "not reproduced"


def of_sets(result: StudyResult, **harmful: Figure) -> StudyResult:
    """Every set's own figures and its controls' gaps as given; `gap` is that of all controls, or `gap_<role>`'s.

    Random controls are as many as make a test.
    """
    trials = copy.deepcopy(result.measured["trials"])
    for tried in trials.values():
        for name, trial in list(tried.items()):
            if trial["role"].startswith("random"):
                tried |= {f"{name}, draw {i}": copy.deepcopy(trial) for i in range(FEWEST_DRAWS)}
    for name, tried in trials.items():
        for one, trial in tried.items():
            if one == name:
                trial["harmful"] |= {key: f for key, f in harmful.items() if not key.startswith("gap")}
            else:
                gap = harmful.get(f"gap_{trial['role'].split()[-1]}", harmful.get("gap"))
                trial["harmful"] |= {"gap": gap} if gap else {}
    return changed(result, trials=trials)


def test_figures_of_a_safety_study_decide(results: dict[str, StudyResult]) -> None:
    one = changed(results["safety-heads-x"], before__harmful__coherent=figure(1.0))
    works = {"fell": figure(0.8), "gained": figure(0.8), "coherent": figure(1.0), "gap": figure(0.7)}

    def outcome(claim: str, **edits: Figure) -> ClaimOutcome:
        return row(claim, of_sets(one, **works | edits)).outcome

    broken = {"gained": figure(0.0), "coherent": figure(0.1)}
    for claim in ("top-head", "sahara"):
        assert outcome(claim) == outcome(claim, gap=figure(0.0)) == "reproduced"
        assert outcome(claim, fell=figure(0.05)) == "not reproduced"
        assert outcome(claim, **broken) == "mixed"
        refuses_little = changed(of_sets(one, **works), before__harmful__refused=figure(0.1))
        assert row(claim, refuses_little).outcome == "not testable here"
    assert outcome("safety-specific") == "reproduced"
    assert outcome("safety-specific", gap_heads=figure(0.0)) == "not reproduced"
    assert outcome("safety-specific", gap_shift=figure(0.0)) == "not reproduced"
    assert outcome("safety-specific", **broken) == "not testable here"
    # More is answered, and more of the text breaks: no effect that is one of the heads.
    half_broken = {"gained": figure(0.4), "coherent": figure(0.6)}
    assert outcome("top-head", **half_broken) == "mixed"
    assert outcome("safety-specific", **half_broken) == "not testable here"
    without = copy.deepcopy(of_sets(one, **works).measured["trials"])
    alone = {name: {name: tried[name]} for name, tried in without.items()}
    assert row("safety-specific", changed(one, trials=alone)).outcome == "not measured"


def test_the_first_screen_tells_what_scaling_the_first_heads_does(results: dict[str, StudyResult]) -> None:
    outcomes = {claim.id: ClaimOutcome.NOT_MEASURED for claim in CLAIMS.claims}
    both = [results["safety-heads-base"], results["safety-heads-x"]]
    *_, last = first_screen(outcomes, both)
    told = re.findall(r"with the top 1 by ships scaled to nothing \(SC\) it complies with (\S+) \[\S+ \S+ of", last)
    assert told == ["1.00"]  # the other refuses nothing
    assert f", {Verdict.SPECIFICITY_UNKNOWN}: refusals go, the text stays" in last


def test_a_model_that_refuses_nothing_tests_nothing(results: dict[str, StudyResult]) -> None:
    silent, refusing = results["safety-heads-base"], of_sets(results["safety-heads-x"])
    for claim in ("top-head", "sahara", "safety-specific", "ua-over-sc"):
        assert row(claim, silent).outcome == "not testable here"
        # and takes nothing from one that does
        both = row(claim, silent, refusing)
        assert both.outcome == row(claim, refusing).outcome
        assert "cannot tell: " in both.measured[0]


@pytest.mark.parametrize(
    ("ua", "sc", "outcome"),
    [(0.8, 0.1, "reproduced"), (0.8, 0.75, "not reproduced"), (0.1, 0.8, "not reproduced"), (0.8, 0.69, "mixed")],
)
def test_two_ablations_are_compared_by_what_is_complied_with(
    results: dict[str, StudyResult], ua: float, sc: float, outcome: str
) -> None:
    trials = copy.deepcopy(results["safety-heads-x"].measured["trials"])
    for name, tried in trials.items():
        for trial in tried.values():
            trial["harmful"]["complied"] = figure(sc if name.endswith(", scaling") else ua, half=0.06)
    assert row("ua-over-sc", changed(results["safety-heads-x"], trials=trials)).outcome == outcome
    alone = {name: tried for name, tried in trials.items() if not name.endswith(", scaling")}
    assert len(alone) < len(trials)
    assert row("ua-over-sc", changed(results["safety-heads-x"], trials=alone)).outcome == "not measured"


def test_tails_lists_and_losses(results: dict[str, StudyResult]) -> None:
    one = results["safety-heads-x"]

    def outcome(claim: str, **edits: Any) -> ClaimOutcome:
        return row(claim, changed(one, **edits)).outcome

    tail = "attribution__undifferentiated__tail__share_of_top_1_percent"
    assert outcome("long-tail", **{tail: 0.31}) == "reproduced"
    assert outcome("long-tail", **{tail: 0.2}) == outcome("long-tail", **{tail: None}) == "not reproduced"

    def lists(shared: int, p: float = 0.5) -> dict[str, Any]:
        return {"sizes": [10, 10], "shared": shared, "p": p, "jaccard": 0.1, "jaccard_by_chance": 0.02}

    ships = "overlap__undifferentiated with scaling__ships"
    assert outcome("ua-sc-lists", **{ships: lists(3)}) == "reproduced"
    assert outcome("ua-sc-lists", **{ships: lists(7)}) == "not reproduced"
    assert outcome("ua-sc-lists", **{ships: lists(5)}) == "mixed"
    ua, sc = (f"attribution__{kind}__two_halves" for kind in ("undifferentiated", "scaling"))
    assert outcome("lists-agree", **{ua: lists(8), sc: lists(4)}) == "reproduced"
    assert outcome("lists-agree", **{ua: lists(8), sc: lists(8)}) == "mixed"
    assert outcome("lists-agree", **{ua: lists(4), sc: lists(1)}) == "not reproduced"
    assert outcome("lists-agree", **{ua: lists(7), sc: lists(9)}) == "not reproduced"
    group = {"trials__Sahara 2__Sahara 2__harmless__coherent": figure(0.7)}
    asked = {"before__questions": {"right": figure(0.9)}}

    def little(before: float, lost: Figure | None) -> ClaimOutcome:
        questions = None if lost is None else {"right": figure(0.8), "lost": lost}
        now = {"trials__Sahara 2__Sahara 2__questions": questions}
        return outcome("little-lost", **{"before__harmless__coherent": figure(before)}, **group, **asked, **now)

    assert little(0.75, NOTHING) == "reproduced"
    assert little(0.95, NOTHING) == "not reproduced"
    assert little(0.75, None) == "mixed"
    assert little(0.75, figure(0.7)) == "not reproduced"
    assert little(0.75, figure(0.05, half=0.2)) == "mixed"


def test_models_of_one_base_are_compared_and_others_are_not(results: dict[str, StudyResult]) -> None:
    one = results["safety-heads-x"]
    same = replace(changed(one, adapter="tuned"), name="safety-heads-y")
    found = row("same-base", one, same)
    assert found.outcome == "reproduced"
    both = "[safety-heads-x](#safety-heads-x) and [safety-heads-y](#safety-heads-y)"
    (words,) = found.measured
    assert words.startswith(f"{both}, yes: 3 of 3 shared (p 0.0045 by chance); they refuse ")
    assert "no heads of refusing" not in words
    silent = changed(same, before__harmful__refused=figure(0.0))
    assert "no heads of refusing" in row("same-base", one, silent).measured[0]
    elsewhere = changed(same, model={"subject": one.measured["model"]["subject"] | {"revision": "another"}})
    assert row("same-base", one, elsewhere).outcome == "not measured"
    assert row("same-base", one).outcome == "not measured"
    top = copy.deepcopy(one.measured["attribution"])
    for at, head in zip(top["undifferentiated"]["top"]["ships"], ("head[2,1]", "head[2,2]", "head[2,3]"), strict=True):
        at["head"] = head
    assert row("same-base", one, changed(same, attribution=top)).outcome == "not reproduced"
