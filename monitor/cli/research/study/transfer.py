"""`awry study transfer`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.cli import options as o
from monitor.cli.inputs import check_choice, command_line, state_folder, texts_of
from monitor.cli.output import say
from monitor.cli.research.study.common import load, report_result
from monitor.cli.tree import Commands, takes
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from probes.studies.subjects import Subject

commands = Commands()


@dataclass(frozen=True, kw_only=True)
class TransferFlags:
    """Models with adapters and their messages, or planted organisms; and how maps are fitted."""

    subject: o.Subject = None
    organism: o.Organism = None
    fit_prompts: o.FitPrompts = None
    test_prompts: o.TestPrompts = None
    anchor_texts: o.AnchorTexts = None
    metric: o.Judge = "code"
    anchors: o.Anchors = "neutral"
    depth: o.Depth = 1.0
    draws: o.Draws = 5
    tests: o.Tests = 100
    interval: o.Interval = 0.2
    scale: o.Scale = None
    seed: o.Seed = 0
    out: o.Out = Path("studies/transfer")
    as_json: o.Json = False
    state_dir: o.StateDir = None


@commands.command()
@takes(TransferFlags)
def transfer(flags: TransferFlags) -> None:
    """Does one model's direction work in another, through a ridge map? (arXiv 2606.20225, section on transfer)

    Writes RESULT.json, TRANSFER.md, pictures and probes to --out, and prints the verdict of each mode, with --json
    what RESULT.json holds.
    """
    from probes.studies.transfer.plan import TransferPlan
    from probes.studies.transfer.run import run_transfer

    check_choice("anchors", flags.anchors, ("neutral", "contrast"))
    subjects, anchor_texts, left_out = _given(flags) if flags.subject else _planted(flags)
    plan = TransferPlan(
        anchors=flags.anchors,  # type: ignore[arg-type]
        depth=flags.depth,
        draws=flags.draws,
        interval=flags.interval,
        seed=flags.seed,
    )
    result = run_transfer(
        subjects, anchor_texts, flags.out, settings=plan, left_out=left_out, command=command_line(), progress=say
    )
    lines = [f"{mode}: {words}" for mode, words in result["verdict"].items()]
    lines += [f"left out: {name}: {why}" for name, why in left_out.items()]
    probes = [probe.get("file") for probe in result["probes"]]
    report_result(lines, flags.out, "TRANSFER.md", *probes, as_json=flags.as_json)


def _given(flags: TransferFlags) -> tuple[list[Subject], list[str], dict[str, str]]:
    """(subjects, anchor texts, nothing left out) of the files that the user gave."""
    if flags.organism:
        raise SettingsError("organism: give subjects or organisms, not both")
    if flags.fit_prompts is None or flags.test_prompts is None or flags.anchor_texts is None:
        raise SettingsError("prompts: --subject needs --fit-prompts, --test-prompts and --anchor-texts")
    fit, test = texts_of(flags.fit_prompts), texts_of(flags.test_prompts)
    anchor_texts = texts_of(flags.anchor_texts)
    return [_subject(text, flags, fit, test) for text in flags.subject or ()], anchor_texts, {}


def _subject(text: str, flags: TransferFlags, fit: list[str], test: list[str]) -> Subject:
    """MODEL+ADAPTER."""
    from probes.organisms.judges import JUDGES
    from probes.studies.subjects import adapter_subject

    model, plus, adapter = text.partition("+")
    if not (model and plus and adapter):
        raise SettingsError(f"subject: {text!r} is not MODEL+ADAPTER")
    check_choice("metric", flags.metric, tuple(JUDGES))
    name = f"{Path(model).name}+{Path(adapter).name}"
    judge = JUDGES[flags.metric]
    return adapter_subject(name, lambda: load(model, adapter, flags.scale, flags.state_dir)[1], judge, fit, test)


def _planted(flags: TransferFlags) -> tuple[list[Subject], list[str], dict[str, str]]:
    """(planted organisms, anchor texts, organisms that were left out and why)."""
    from probes.studies.subjects import planted_anchors, planted_subjects

    subjects: list[Subject] = []
    left_out: dict[str, str] = {}
    for family, number in _organisms(flags.organism):
        made, without = planted_subjects([family], [number], state_folder(flags.state_dir), say, tests=flags.tests)
        subjects += made
        left_out |= without
    return subjects, planted_anchors(), left_out


def _organisms(written: list[str] | None) -> list[tuple[str, int]]:
    """(family, seed) of each FAMILY:SEED; without any, all families with seed 0."""
    from probes.organisms.planted.families import FAMILIES

    organisms = []
    for text in written or [f"{family}:0" for family in FAMILIES]:
        family, _, number = text.partition(":")
        if family not in FAMILIES or not (number.isdecimal() and len(number) < 10):
            raise SettingsError(f"organism: {text[:40]!r} is not FAMILY:SEED with a family of {', '.join(FAMILIES)}")
        organisms.append((family, int(number)))
    return organisms
