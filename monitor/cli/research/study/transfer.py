"""`awry study transfer`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.cli import inputs
from monitor.cli import options as o
from monitor.cli.inputs import check_choice, command_line, state_folder, texts_of
from monitor.cli.output import say
from monitor.cli.research.study.common import load, report_result
from monitor.cli.tree import Commands, takes
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from probes.model.load import ChatModel
    from probes.studies.presets import TransferTexts
    from probes.studies.subjects import Subject
    from probes.studies.transfer.families.plan import Family

commands = Commands()

# Random controls of each kind, but between families.
_DRAWS = 5


@dataclass(frozen=True, kw_only=True)
class TransferFlags:
    """Models with adapters and their messages, real families, or planted organisms; and how maps are fitted."""

    subject: o.Subject = None
    family: o.Family = None
    organism: o.Organism = None
    fit_prompts: o.FitPrompts = None
    test_prompts: o.TestPrompts = None
    anchor_texts: o.AnchorTexts = None
    metric: o.TransferJudge = None
    anchors: o.Anchors = "neutral"
    depth: o.Depth = 1.0
    draws: o.TransferDraws = None
    tests: o.Tests = 100
    interval: o.Interval = 0.2
    scale: o.Scale = None
    chat_template: o.ChatTemplate = None
    seed: o.Seed = 0
    out: o.Out = Path("studies/transfer")
    as_json: o.Json = False
    state_dir: o.StateDir = None


@commands.command()
@takes(TransferFlags)
def transfer(flags: TransferFlags) -> None:
    """Does one model's direction work in another, through a ridge map? (arXiv 2606.20225, section on transfer)

    With --subject the models are yours with adapters, asked your own messages or awry's. With --family they are real
    ones as they are, of which no adapter is needed: detection of harmful requests, and steering towards refusing and
    away from it, on awry's own messages; only the seed, the draws and a chat template are chosen then. Writes
    RESULT.json, TRANSFER.md, pictures and, but for families, probes to --out, and prints the verdicts, with --json what
    RESULT.json holds.
    """
    from probes.studies.transfer.plan import TransferPlan
    from probes.studies.transfer.run import run_transfer

    if flags.family:
        _between_families(flags)
        return
    if flags.chat_template:
        raise SettingsError("chat_template: is for --family; subjects and organisms have a template of their own")
    check_choice("anchors", flags.anchors, ("neutral", "contrast"))
    subjects, anchor_texts, left_out = _given(flags) if flags.subject else _planted(flags)
    plan = TransferPlan(
        anchors=flags.anchors,  # type: ignore[arg-type]
        depth=flags.depth,
        draws=_DRAWS if flags.draws is None else flags.draws,
        interval=flags.interval,
        seed=flags.seed,
    )
    result = run_transfer(
        subjects, anchor_texts, flags.out, settings=plan, left_out=left_out, command=command_line(), progress=say
    )
    lines = [f"{what}: {verdict['sentence']}" for what, verdict in result["verdicts"].items()]
    lines += [f"warning: {text}" for text in result["verdict"]["warnings"]]
    lines += [f"left out: {name}: {why}" for name, why in left_out.items()]
    probes = [probe.get("file") for probe in result["exported"]]
    report_result(lines, flags.out, "TRANSFER.md", *probes, as_json=flags.as_json)


def _between_families(flags: TransferFlags) -> None:
    from probes.studies.framework.verdict import FEWEST_DRAWS
    from probes.studies.transfer.families.plan import FamilyPlan
    from probes.studies.transfer.families.report import run_families
    from probes.studies.transfer.families.texts import family_texts

    if flags.subject or flags.organism:
        raise SettingsError("family: give families, subjects or organisms, one kind of them")
    if flags.fit_prompts or flags.test_prompts or flags.anchor_texts:
        raise SettingsError(
            "family: is asked awry's own messages; leave out --fit-prompts, --test-prompts, --anchor-texts"
        )
    if flags.scale is not None:
        raise SettingsError("scale: families have no adapter to scale; leave it out")
    plan = FamilyPlan(draws=FEWEST_DRAWS if flags.draws is None else flags.draws, seed=flags.seed)
    families = _families(flags)
    result = run_families(families, family_texts(), flags.out, plan=plan, command=command_line(), progress=say)
    verdict = result["verdict"]
    report_result([verdict["sentence"], *verdict["reasons"]], flags.out, "TRANSFER.md", as_json=flags.as_json)


def _families(flags: TransferFlags) -> list[Family]:
    """The families; that one has no template is known before any of them is read."""
    from monitor.service.bootstrap import open_tokenizer
    from monitor.settings import load_settings
    from probes.model.builtin import own_template
    from probes.model.template import NoTemplateError
    from probes.studies.transfer.families.plan import Family

    families, needed = [], False
    for name in flags.family or ():
        template, source = None, "the chat template that comes with it"
        try:
            open_tokenizer(load_settings(model=name, state_dir=flags.state_dir))
            if own_template(name):
                source = (
                    "a base model, with a chat template of awry's own (turns as its family's instruct models mark them)"
                )
        except NoTemplateError:
            if flags.chat_template is None:
                raise SettingsError(
                    f"chat_template: {Path(name).name} has no chat template of its own; name a file with one by "
                    "--chat-template"
                ) from None
            template, needed = flags.chat_template, True
            source = f"the chat template of {template.name}, as it has none of its own"
        families.append(Family(Path(name).name, partial(_plain, name, flags.state_dir, template), source))
    if flags.chat_template and not needed:
        raise SettingsError("chat_template: every family given has one of its own; leave it out")
    return families


def _plain(name: str, state_dir: Path | None, template: Path | None) -> ChatModel:
    return inputs.load(name, None, None, state_dir, template)[1]


def _given(flags: TransferFlags) -> tuple[list[Subject], list[str], dict[str, str]]:
    """(subjects, anchor texts, nothing left out): of the files that the user gave, else of awry's own messages."""
    from probes.studies.presets import TransferTexts, transfer_texts

    if flags.organism:
        raise SettingsError("organism: give subjects or organisms, not both")
    named = [_model_and_adapter(text) for text in flags.subject or ()]
    judge = _judge(flags, [adapter for _, adapter in named])
    files = (flags.fit_prompts, flags.test_prompts, flags.anchor_texts)
    given = [path for path in files if path is not None]
    if given and len(given) < len(files):
        raise SettingsError("prompts: give --fit-prompts, --test-prompts and --anchor-texts together, or none of them")
    texts = TransferTexts(*map(texts_of, given)) if given else transfer_texts(judge)
    return [_subject(*each, judge, flags, texts) for each in named], texts.anchors, {}


def _model_and_adapter(text: str) -> tuple[str, str]:
    model, plus, adapter = text.partition("+")
    if not (model and plus and adapter):
        raise SettingsError(f"subject: {text!r} is not MODEL+ADAPTER")
    return model, adapter


def _judge(flags: TransferFlags, adapters: list[str]) -> str:
    """The judge that was asked for, else the one that goes with the recipe of all adapters."""
    from probes.organisms.judges import JUDGES
    from probes.studies.presets import judge_of

    if flags.metric is not None:
        check_choice("metric", flags.metric, tuple(JUDGES))
        return flags.metric
    found = {judge_of(adapter) for adapter in adapters}
    judge = found.pop() if len(found) == 1 else None
    if judge is None:
        raise SettingsError(
            f"metric: the adapters are not all of one recipe of awry's; name what counts: {', '.join(JUDGES)}"
        )
    return judge


def _subject(model: str, adapter: str, judge: str, flags: TransferFlags, texts: TransferTexts) -> Subject:
    from probes.organisms.judges import JUDGES
    from probes.studies.subjects import adapter_subject

    name = f"{Path(model).name}+{Path(adapter).name}"
    return adapter_subject(
        name,
        lambda: load(model, adapter, flags.scale, flags.state_dir)[1],
        JUDGES[judge],
        texts.fit,
        texts.test,
    )


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
