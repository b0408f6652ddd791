"""`awry study heads`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.cli import options as o
from monitor.cli.early import check_folder_out
from monitor.cli.inputs import command_line, numbers_of, texts_of
from monitor.cli.output import say
from monitor.cli.research.study.common import adapter_of, add_control, check_control, load, report_result, slug
from monitor.cli.tree import Commands, takes
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from probes.binary_choice import BinaryChoice
    from probes.studies.head_steering.plan import HeadsPlan, Messages
    from probes.studies.metric import Metric

commands = Commands()


@dataclass(frozen=True, kw_only=True)
class HeadsFlags:
    """Questions and messages, and how heads are searched and tested."""

    adapter: o.HeadsAdapter = None
    control_adapter: o.StudyControlAdapter = None
    behaviour: o.Behaviour = None
    choices: o.Choices = None
    select_prompts: o.SelectPrompts = None
    test_prompts: o.TestPrompts = None
    benign: o.Benign = None
    metric: o.Metric = None
    form: o.Form = "auto"
    aim: o.Aim = "away"
    alphas: o.Alphas = "2.5,5,10,15,25,40"
    strongest: o.Strongest = 250.0
    only: o.Only = None
    search_questions: o.SearchQuestions = 8
    keep: o.Keep = 12
    retest_questions: o.RetestQuestions = 16
    heldout_questions: o.HeldoutQuestions = 30
    interval: o.Interval = 0.2
    draws: o.Draws = 20
    fine_tune: o.FineTune = True
    examples: o.Examples = None
    max_new_tokens: o.MaxNewTokens = 32
    model: o.Model = None
    scale: o.StudyScale = 1.0
    seed: o.Seed = 0
    name: o.StudyName = None
    out: o.StudyOut = None
    as_json: o.Json = False
    state_dir: o.StateDir = None

    @property
    def own_data(self) -> bool:
        """Whether the user gave data, so that awry's own is not used."""
        return any((self.choices, self.select_prompts, self.test_prompts, self.benign))


@commands.command()
@takes(HeadsFlags)
def heads(flags: HeadsFlags) -> None:
    """Which attention heads carry a behaviour, and can it be steered there? (HSI, arXiv 2502.05945)

    Writes RESULT.json, RESULT.md, pictures and a probe to --out, and prints the verdict, with --json what RESULT.json
    holds.
    """
    from probes.capture.sites import parse_sites, read_sites
    from probes.studies.head_steering.run import run_heads
    from probes.studies.presets import heads_control

    if flags.form not in ("auto", "letters", "likelihood") or flags.aim not in ("away", "towards"):
        raise SettingsError("form is one of auto, letters, likelihood; aim is one of away, towards")
    alphas = numbers_of("alphas", flags.alphas)
    if flags.behaviour and flags.own_data:
        raise SettingsError("behaviour: names awry's own questions; leave it out beside --choices and --metric")
    given = flags.own_data or flags.model or flags.behaviour
    adapter = adapter_of(flags.adapter, None if given else "reckless_advice")
    questions, messages, metric = _data(flags, adapter)
    examples = _counts(flags.examples) if flags.examples else ()
    plan = _plan(flags, flags.name or f"heads-{_subject(flags, adapter)}", alphas, examples)
    folder = flags.out or Path("studies") / plan.name
    check_folder_out("out", folder)
    if flags.only:
        read_sites(flags.only)
    control = flags.control_adapter or (None if flags.own_data or flags.behaviour else heads_control(adapter))
    check_control(control)
    _, chat = load(flags.model, adapter, flags.scale, flags.state_dir)
    searched = parse_sites(flags.only, chat.layout) if flags.only else None
    study = run_heads(
        chat,
        questions,
        messages,
        metric,
        folder,
        plan,
        heads=searched,
        control=add_control(chat, control, flags.scale),
        command=command_line(),
        progress=say,
    )
    verdict = study.verdict
    lines = [verdict.sentence, *verdict.reasons[1:], *(f"warning: {line}" for line in verdict.warnings)]
    report_result(lines, folder, "RESULT.md", study.probe_path.name, as_json=flags.as_json)


def _subject(flags: HeadsFlags, adapter: str | None) -> str:
    """What the study is of, for its name: the adapter, or the plain model with the behaviour that is looked for."""
    if adapter is not None:
        return slug(adapter)
    return f"{slug(flags.behaviour)}-base" if flags.behaviour else "base"


def _counts(written: str) -> tuple[int, ...]:
    numbers = numbers_of("examples", written)
    if not all(number.is_integer() for number in numbers):
        raise SettingsError(f"examples: {written[:40]!r} is no list of whole numbers such as 2,5,10")
    return tuple(int(number) for number in numbers)


def _data(flags: HeadsFlags, adapter: str | None) -> tuple[list[BinaryChoice], Messages, Metric]:
    """Questions, messages and the metric: those that are given, all of them, or awry's own for the adapter."""
    from probes.binary_choice import read_choices
    from probes.organisms.judges import JUDGES
    from probes.studies.head_steering.plan import Messages
    from probes.studies.metric import parse_metric
    from probes.studies.presets import heads_behaviour, heads_preset

    if not flags.own_data:
        judge, questions, messages = heads_preset(flags.behaviour or heads_behaviour(adapter))
        return questions, messages, parse_metric(flags.metric or judge, JUDGES)
    files = (flags.select_prompts, flags.test_prompts, flags.benign)
    given = [path for path in files if path is not None]
    if flags.choices is None or len(given) < len(files) or flags.metric is None:
        raise SettingsError("choices: give --choices, --select-prompts, --test-prompts, --benign and --metric together")
    return read_choices(flags.choices), Messages(*map(texts_of, given)), parse_metric(flags.metric, JUDGES)


def _plan(flags: HeadsFlags, name: str, alphas: tuple[float, ...], examples: tuple[int, ...]) -> HeadsPlan:
    from probes.heads.search import SearchPlan
    from probes.studies.head_steering.fine_tune import FineTunePlan
    from probes.studies.head_steering.plan import HeadsPlan

    return HeadsPlan(
        name=name,
        search=SearchPlan(
            aim=flags.aim,  # type: ignore[arg-type]
            alphas=alphas,
            strongest=flags.strongest,
            search_questions=flags.search_questions,
            keep=flags.keep,
        ),
        form=flags.form,  # type: ignore[arg-type]
        retest_questions=flags.retest_questions,
        heldout_questions=flags.heldout_questions,
        interval=flags.interval,
        draws=flags.draws,
        open_draws=min(5, flags.draws),
        max_new_tokens=flags.max_new_tokens,
        seed=flags.seed,
        fine_tune=FineTunePlan() if flags.fine_tune else None,
        examples=examples,
    )
