"""`awry study direction`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.cli import options as o
from monitor.cli.early import check_folder_out
from monitor.cli.inputs import command_line, texts_of
from monitor.cli.output import say
from monitor.cli.research.study.common import adapter_of, add_control, check_control, load, report_result, slug
from monitor.cli.tree import Commands, takes
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from monitor.datasets import Labelled
    from probes.model.load import ChatModel
    from probes.studies.direction import Comparison, Plan
    from probes.studies.presets import Preset

commands = Commands()


@dataclass(frozen=True, kw_only=True)
class DirectionFlags:
    """What is compared (an adapter, a checkpoint or labelled messages), on which messages, and how."""

    adapter: o.DirectionAdapter = None
    control_adapter: o.StudyControlAdapter = None
    tuned: o.Tuned = None
    control: o.Control = None
    labelled: o.Labelled = None
    control_labelled: o.ControlLabelled = None
    fit_prompts: o.FitPrompts = None
    select_prompts: o.SelectPrompts = None
    test_prompts: o.TestPrompts = None
    metric: o.Metric = None
    sites: o.Sites = "all"
    steer: o.Steer = None
    steered: o.Steered = None
    interval: o.Interval = 0.15
    random_directions: o.RandomDirections = 20
    permutations: o.Permutations = 20
    prediction_scale: o.PredictionScale = None
    max_new_tokens: o.MaxNewTokens = 40
    model: o.Model = None
    scale: o.StudyScale = 1.0
    seed: o.Seed = 0
    name: o.StudyName = None
    out: o.StudyOut = None
    as_json: o.Json = False
    state_dir: o.StateDir = None

    @property
    def prompts(self) -> list[Path]:
        given = (self.fit_prompts, self.select_prompts, self.test_prompts)
        return [path for path in given if path is not None]

    @property
    def own_data(self) -> bool:
        """Whether the user gave data, so that awry's own is not used."""
        return bool(self.prompts) or self.tuned is not None or self.labelled is not None

    def study_name(self, adapter: str | None) -> str:
        return self.name or f"direction-{slug(self.tuned or (self.labelled.stem if self.labelled else str(adapter)))}"


@commands.command()
@takes(DirectionFlags)
def direction(flags: DirectionFlags) -> None:
    """Is there a direction of misalignment, does it control the behaviour, and is it specific? (arXiv 2606.20225)

    Writes RESULT.json, table.md, pictures and a probe to --out, and prints the verdict, with --json what RESULT.json
    holds.
    """
    from probes.organisms.judges import JUDGES
    from probes.studies.direction import run_direction
    from probes.studies.metric import parse_metric
    from probes.studies.mitigation import Prompts
    from probes.studies.presets import direction_preset

    adapter = adapter_of(flags.adapter, None if flags.own_data or flags.model else "insecure_code")
    preset = None if flags.own_data else direction_preset(str(adapter))
    if preset is None and (len(flags.prompts) < 3 or flags.metric is None):
        raise SettingsError("prompts: give --fit-prompts, --select-prompts, --test-prompts and --metric together")
    prompts = preset.prompts if preset else Prompts(*map(texts_of, flags.prompts))
    metric = parse_metric(flags.metric or (preset.judge if preset else ""), JUDGES)
    folder = flags.out or Path("studies") / flags.study_name(adapter)
    control = flags.control_adapter or (preset.control if preset else None)
    _check(flags, folder, control)
    chat, comparison = _comparison(flags, adapter, control)
    name = flags.study_name(adapter)
    plan = _plan(flags, chat, preset)
    result = run_direction(comparison, prompts, metric, folder, plan, name=name, command=command_line(), progress=say)
    verdict = result["verdict"]
    lines = [verdict["sentence"], *verdict["reasons"], *(f"warning: {line}" for line in verdict["warnings"])]
    report_result(lines, folder, "table.md", result["probe"].get("file"), as_json=flags.as_json)


def _check(flags: DirectionFlags, folder: Path, control: str | None) -> None:
    """What can be known to be wrong without a model."""
    from probes.capture.sites import read_sites

    for sites in (flags.sites, flags.steer):
        if sites is not None:
            read_sites(sites)
    check_control(control)
    check_folder_out("out", folder)


def _comparison(flags: DirectionFlags, adapter: str | None, control: str | None) -> tuple[ChatModel, Comparison]:
    """The model that is steered, and what is compared to find the direction."""
    from monitor.datasets import rows_of
    from probes.studies import direction as studies

    if flags.labelled is not None:
        messages, control_messages = _messages(flags.labelled), _messages(flags.control_labelled)
        settings, chat = load(flags.model, None, None, flags.state_dir)
        rows = rows_of(chat, messages, settings.max_tokens)
        control_rows = rows_of(chat, control_messages, settings.max_tokens)
        return chat, studies.labelled_messages(chat, rows, control_rows)
    if flags.tuned is not None:
        _, base = load(flags.model, None, None, flags.state_dir)
        _, tuned = load(flags.tuned, None, None, flags.state_dir)
        other = load(flags.control, None, None, flags.state_dir)[1] if flags.control else None
        return tuned, studies.checkpoint_pair(tuned, base, other)
    if adapter is None:
        raise SettingsError("adapter: give --adapter, --tuned or --labelled; there is nothing to compare")
    _, chat = load(flags.model, adapter, flags.scale, flags.state_dir)
    return chat, studies.adapter_pair(chat, add_control(chat, control, flags.scale))


def _messages(path: Path | None) -> list[Labelled]:
    from monitor.datasets import read_messages

    return read_messages(path, labelled=True) if path else []


def _plan(flags: DirectionFlags, chat: ChatModel, preset: Preset | None) -> Plan:
    from probes.capture.sites import parse_sites
    from probes.studies.direction import Plan

    return Plan(
        sites=tuple(parse_sites(flags.sites, chat.layout)),
        steer=tuple(parse_sites(flags.steer, chat.layout)) if flags.steer else None,
        steered=flags.steered or (preset.steered if preset else 60),
        interval=flags.interval,
        random_directions=flags.random_directions,
        permutations=flags.permutations,
        prediction_scale=flags.prediction_scale or (preset.prediction_scale if preset else None),
        max_new_tokens=flags.max_new_tokens,
        seed=flags.seed,
    )
