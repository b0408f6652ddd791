"""docs/study.md: the papers' claims beside what was measured here, row by row, then every study with its pictures.

Contract: `write_study_page(studies, out)` makes the page of claims.toml and of every `studies/*/RESULT.json` alone, the
same page each time; it runs no model. Outcomes come from the rules, never from the claims' file. Raises DataError,
naming the file, for a result that cannot be read, and writes nothing then.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import DataError
from probes.studies.framework.result import StudyResult
from probes.studies.framework.verdict import ClaimOutcome, Support
from probes.studies.summary import direction_rules, family_rules, head_rules, safety_rules, transfer_rules
from probes.studies.summary.first_screen import first_screen
from probes.studies.summary.recall import planted_recall
from probes.studies.summary.results import Figures, Rule, decide, read_results, whole
from probes.studies.summary.sections import section
from probes.studies.tables import table

# How the names of planted organisms begin.
SYNTHETIC_NAME = "planted-"
CLAIMS = Path(__file__).with_name("claims.toml")
RULES: dict[str, Rule] = (
    direction_rules.RULES | transfer_rules.RULES | family_rules.RULES | head_rules.RULES | safety_rules.RULES
)


@dataclass(frozen=True)
class Paper:
    """A paper, what of it could be read, and what of it was left out here."""

    id: str
    title: str
    note: str
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """One claim in our words with the paper's figure; either `rule` and `study`, or why it is `not_testable`."""

    id: str
    paper: str
    claim: str
    figure: str
    place: str
    study: str | None = None
    rule: str | None = None
    not_testable: str | None = None


@dataclass(frozen=True)
class Claims:
    papers: tuple[Paper, ...]
    claims: tuple[Claim, ...]
    commands: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """A claim's outcome, and what each result says of it; where none was made, how to make one."""

    claim: Claim
    outcome: ClaimOutcome
    measured: tuple[str, ...]
    power: tuple[str, ...] = ()
    recall: tuple[str, ...] = ()


def load_claims(path: Path = CLAIMS) -> Claims:
    """The claims' file. DataError where a claim has no paper, no rule that exists, or two ways to be decided."""
    try:
        table = tomllib.loads(path.read_text())
        papers = tuple(Paper(**{**paper, "left_out": tuple(paper["left_out"])}) for paper in table["paper"])
        claims = tuple(Claim(**claim) for claim in table["claim"])
        known = Claims(papers, claims, table["commands"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {type(error).__name__}: {error}") from error
    ids = {p.id for p in papers}
    for claim in claims:
        tested = claim.rule in RULES and claim.study in known.commands
        if claim.paper not in ids or tested == (claim.not_testable is not None):
            raise DataError(f"{path}: claim {claim.id} needs a paper, and either a rule with a study or not_testable")
    return known


def write_study_page(studies: Path, out: Path) -> None:
    """The page of all results below `studies`, at `out`."""
    text = study_page(load_claims(), read_results(studies), out.parent)
    try:
        out.write_text(text)
    except OSError as error:
        raise DataError(f"study page: cannot write {out} ({error.strerror})") from error


def study_page(claims: Claims, results: Sequence[StudyResult], at: Path) -> str:
    """The whole page; links are relative to `at`."""
    rows = [row_of(claim, claims.commands, results) for claim in claims.claims]
    screen = first_screen({row.claim.id: row.outcome for row in rows}, results)
    lines = [
        _scale(results),
        "",
        "# Three papers, beside what was measured here",
        "",
        *screen,
        "",
        *_intro(rows, results),
    ]
    for paper in claims.papers:
        own = [row for row in rows if row.claim.paper == paper.id]
        lines += [f"## {paper.title} (arXiv {paper.id})", "", paper.note, "", *_table(own), "", *_rules(own), ""]
    lines += ["## The studies", ""]
    for result in results:
        lines += section(result, at)
    if not results:
        lines += ["None was run yet.", ""]
    return "\n".join([*lines, *_left_out(claims, results)])


def _scale(results: Sequence[StudyResult]) -> str:
    """What all of the page was measured on."""
    models = list(dict.fromkeys(name for result in results for name in result.models))
    organisms = [name for name in models if name.startswith(SYNTHETIC_NAME)]
    real = [name for name in models if name not in organisms]
    on = [f"{', '.join(real)} with fine-tunes made here"] if real else []
    on += ["planted organisms of 0.9M parameters (marked *synthetic*)"] if organisms else []
    return (
        f"**The scale of this page:** everything here was measured on {' and on '.join(on) or 'nothing yet'}; it says "
        "that the tools work, and not how real large models behave."
    )


def row_of(claim: Claim, commands: Mapping[str, str], results: Sequence[StudyResult]) -> Row:
    """What the results of its study say of a claim."""
    if claim.study is None or claim.rule is None:
        return Row(claim, ClaimOutcome.NOT_TESTABLE, (str(claim.not_testable),))
    rule = RULES[claim.rule]
    recall = planted_recall(results, rule.methods)
    own = [r for r in results if r.study == claim.study]
    if not own:
        return Row(claim, ClaimOutcome.NOT_MEASURED, (f"not run: `{commands[claim.study]}`",), (), recall)
    seen = rule.apply(own)
    return Row(
        claim,
        decide([s for _, s in seen]),
        tuple(f"{label}, {_ANSWERS[s.support]}: {s.words}" for label, s in seen),
        tuple(dict.fromkeys(whole(r, rule.power) for r in own)),
        recall,
    )


def _intro(rows: Sequence[Row], results: Sequence[StudyResult]) -> list[str]:
    count = Counter(row.outcome for row in rows)
    models = dict.fromkeys(name for result in results for name in result.models)
    return [
        "Made by `make study` from the RESULT.json of every study; do not edit. Each row is decided from those figures "
        "by the rule under its table; the command of a study is in its section below. A row that was not reproduced is "
        "a result, and so is one that was.",
        "",
        "| outcome | rows | what it means |",
        "|---|---|---|",
        *(f"| {outcome} | {count[outcome]} | {_MEANS[outcome]} |" for outcome in ClaimOutcome),
        "",
        "Brackets are 95 % intervals, n is what was counted. Figures are on held-out messages, which chose nothing. "
        "*Power*: the smallest effect that so many rows show with 80 % probability (two-sided, 5 %); a smaller one may "
        "well have been missed. *Planted truth found*: how many of the heads that were trained to carry a behaviour "
        "the method behind the claim names among its first (study `planted-heads`). A method that does not name them "
        "may miss such heads elsewhere too; it got fewer prompts there than in its own study, its first stage alone "
        "where it has several, and a behaviour that shows more in how likely answers are than in open answers.",
        f"Models measured: {', '.join(models) or 'none yet'}.",
        "",
    ]


_ANSWERS: dict[Support, str] = {
    Support.YES: "yes",
    Support.NO: "no",
    Support.UNSURE: "uncertain",
    Support.UNTESTABLE: "cannot tell",
    Support.UNMEASURED: "not measured",
}
_MEANS: dict[ClaimOutcome, str] = {
    ClaimOutcome.REPRODUCED: "every study that could tell says so",
    ClaimOutcome.NOT_REPRODUCED: "every study that could tell says the contrary",
    ClaimOutcome.MIXED: "studies disagree, or one is too uncertain to say",
    ClaimOutcome.NOT_TESTABLE: "it needs what is not here (the row says what), or nothing here can be tested for it",
    ClaimOutcome.NOT_MEASURED: "nothing was measured that could tell; the command is there",
}


def _table(rows: Sequence[Row]) -> list[str]:
    header = ("", "claim", "in the paper", "measured here", "power", "planted truth found", "outcome")
    cells = [
        [
            str(i),
            row.claim.claim,
            f"{row.claim.figure}<br>*{row.claim.place}*",
            "<br>".join(row.measured),
            "<br>".join(row.power) or "none",
            "<br>".join(row.recall) or "no search",
            f"**{row.outcome}**",
        ]
        for i, row in enumerate(rows, 1)
    ]
    return table(header, [[_cell(cell) for cell in line] for line in cells])[:-1]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _rules(rows: Sequence[Row]) -> list[str]:
    """How each row is decided, in the order of the table."""
    lines = ["<details><summary>When a row counts as reproduced</summary>", ""]
    for i, row in enumerate(rows, 1):
        when = "not testable here" if row.claim.rule is None else f"when {RULES[row.claim.rule].when}"
        lines.append(f"{i}. {when}.")
    return [*lines, "", "</details>"]


def _left_out(claims: Claims, results: Sequence[StudyResult]) -> list[str]:
    lines = ["## What was left out", ""]
    for paper in claims.papers:
        lines += [f"Of {paper.title}:", "", *(f"- {what}" for what in paper.left_out), ""]
    inside = [f"- {r.name}: {what}" for r in results for what in whole(r, _left_out_of)]
    if inside:
        lines += ["Inside the studies:", "", *inside, ""]
    missing = [f"- `{command}`" for kind, command in claims.commands.items() if all(r.study != kind for r in results)]
    if missing:
        lines += ["Not run yet:", "", *missing, ""]
    return lines


def _left_out_of(result: Figures) -> list[str]:
    """What a study says itself that it could not do, whatever its kind."""
    found = [f"{name}: {why}" for name, why in result.get("left_out", {}).items()]
    if without := result.get("sites_without_direction"):
        found.append(f"no direction at {', '.join(without)}")
    prediction: dict[str, Any] = result.get("prediction", {})
    if "not_possible" in prediction:
        found.append(f"prediction: {prediction['not_possible']}")
    if skipped := result.get("search", {}).get("skipped"):
        found.append(f"{len(skipped)} heads without a direction")
    return found
