"""`awry study safety-heads`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.cli import options as o
from monitor.cli.early import check_folder_out
from monitor.cli.inputs import command_line, numbers_of
from monitor.cli.output import say
from monitor.cli.research.study.common import adapter_of, load, report_result, slug
from monitor.cli.tree import Commands, takes
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from probes.studies.safety_heads.plan import Request, SafetyPlan

commands = Commands()


@dataclass(frozen=True, kw_only=True)
class SafetyFlags:
    """Requests, and how heads are scored and ablated."""

    adapter: o.SafetyAdapter = None
    harmful: o.Harmful = None
    harmless: o.Harmless = None
    attributed: o.Attributed = 24
    dataset_prompts: o.DatasetPrompts = 8
    held_out: o.HeldOut = 100
    interval: o.Interval = 0.2
    metric: o.Metric = None
    against: o.Against = None
    top: o.Top = "1,3"
    draws: o.Draws = 20
    max_new_tokens: o.MaxNewTokens = 24
    model: o.Model = None
    scale: o.Scale = None
    seed: o.Seed = 0
    name: o.StudyName = None
    out: o.StudyOut = None
    as_json: o.Json = False
    state_dir: o.StateDir = None


@commands.command("safety-heads")
@takes(SafetyFlags)
def safety_heads(flags: SafetyFlags) -> None:
    """Which attention heads carry refusal? (Ships and Sahara, arXiv 2410.13708)

    Writes RESULT.json, RESULT.md, pictures and a probe to --out, and prints a verdict for each set of heads, with
    --json what RESULT.json holds.
    """
    from probes.organisms.judges import JUDGES
    from probes.organisms.messages import ordinary_questions
    from probes.studies.metric import parse_metric
    from probes.studies.safety_heads.run import run_safety_heads
    from probes.studies.safety_heads.utility import Question

    sizes = _sizes(flags.top)
    harmful, harmless = _requests(flags)
    adapter = adapter_of(flags.adapter, None if flags.harmful or flags.model else "refusal")
    name = flags.name or f"safety-heads-{slug(adapter or 'base')}"
    folder = flags.out or Path("studies") / name
    check_folder_out("out", folder)
    for path in flags.against or ():
        if not (path / "RESULT.json" if path.is_dir() else path).is_file():
            raise SettingsError(f"against: there is no result in {path}; give the folder or RESULT.json of a study")
    metric = parse_metric(flags.metric or "refusal", JUDGES)
    settings, chat = load(flags.model, adapter, flags.scale, flags.state_dir)
    plan = _plan(flags, name, sizes, settings.max_tokens)
    result = run_safety_heads(
        chat,
        harmful,
        harmless,
        folder,
        plan,
        metric=metric,
        questions=[Question(q["question"], q["right"], q["wrong"]) for q in ordinary_questions()],
        against=flags.against or (),
        command=command_line(),
        on_progress=lambda stage, done, of: say(f"{stage}: {done} of {of}"),
        progress=say,
    )
    lines = [f"{heads}: {verdict['sentence']}" for heads, verdict in result["verdicts"].items()]
    report_result(lines, folder, "RESULT.md", result["probe"].get("file"), as_json=flags.as_json)


def _sizes(written: str) -> tuple[int, ...]:
    numbers = numbers_of("top", written)
    sizes = tuple(int(n) for n in numbers)
    if sizes != numbers:
        raise SettingsError(f"top: {written!r} is no list of whole numbers such as 1,3")
    return sizes


def _requests(flags: SafetyFlags) -> tuple[list[Request], list[Request]]:
    """(harmful, harmless): the files that are given, both, or awry's own."""
    from monitor.datasets import read_messages
    from probes.studies.presets import refusal_requests
    from probes.studies.safety_heads.plan import Request

    if (flags.harmful is None) != (flags.harmless is None):
        raise SettingsError("harmless: give both --harmful and --harmless, or neither")
    if flags.harmful is None or flags.harmless is None:
        return refusal_requests()
    harmful, harmless = (
        [Request(item.message.turns, item.group) for item in read_messages(path)]
        for path in (flags.harmful, flags.harmless)
    )
    return harmful, harmless


def _plan(flags: SafetyFlags, name: str, sizes: tuple[int, ...], max_tokens: int) -> SafetyPlan:
    from probes.studies.safety_heads.plan import SafetyPlan

    return SafetyPlan(
        name=name,
        top=sizes,
        draws=flags.draws,
        attributed=flags.attributed,
        dataset_prompts=min(flags.dataset_prompts, flags.attributed),
        held_out=flags.held_out,
        interval=flags.interval,
        max_new_tokens=flags.max_new_tokens,
        max_tokens=max_tokens,
        seed=flags.seed,
        # The shipped refusal adapter was trained by this split of awry's own requests.
        split_seed=None if flags.harmful else 0,
    )
