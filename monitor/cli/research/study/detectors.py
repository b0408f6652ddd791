"""`awry study detectors`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.cli import options as o
from monitor.cli.early import check_folder_out, check_share
from monitor.cli.inputs import command_line, texts_of
from monitor.cli.output import say
from monitor.cli.research.study.common import adapter_of, load, report_result
from monitor.cli.tree import Commands, takes
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from probes.attacks.base import Family
    from probes.model.layout import Layout
    from probes.studies.detectors.plan import DetectorData, DetectorPlan, RequestPair

commands = Commands()


@dataclass(frozen=True, kw_only=True)
class DetectorFlags:
    """Requests and everyday messages, the probe that is compared with, and how much is attacked."""

    probe: o.SharedProbe = None
    harmful: o.Harmful = None
    harmless: o.Harmless = None
    benign: o.Benign = None
    attacked: o.Attacked = 30
    families: o.Families = None
    target_fpr: o.TargetFpr = 0.01
    permutations: o.Permutations = 20
    model: o.Model = None
    adapter: o.Adapter = None
    scale: o.Scale = None
    seed: o.Seed = 0
    name: o.StudyName = None
    out: o.StudyOut = None
    as_json: o.Json = False
    state_dir: o.StateDir = None

    @property
    def own_data(self) -> bool:
        """Whether the user gave data, so that awry's own is not used."""
        return any((self.harmful, self.harmless, self.benign))


@commands.command()
@takes(DetectorFlags)
def detectors(flags: DetectorFlags) -> None:
    """Which way of reading finds harmful requests best? Directions and regressions on the same rows.

    Writes RESULT.json, RESULT.md and a picture to --out, and prints the verdict, with --json what RESULT.json holds.
    """
    from probes.card import load_probe
    from probes.studies.detectors.run import run_detectors

    name = flags.name or "detectors"
    folder = flags.out or Path("studies") / name
    check_folder_out("out", folder)
    check_share("target_fpr", flags.target_fpr)
    families = _families(flags)
    wanted = flags.probe or (None if flags.own_data or flags.model else "harmful-request")
    shipped = load_probe(wanted) if wanted else None
    data = _data(flags)
    settings, chat = load(flags.model, adapter_of(flags.adapter, None), flags.scale, flags.state_dir)
    plan = _plan(flags, name, chat.layout, settings.max_tokens, families)
    result = run_detectors(chat, data, folder, plan, shipped=shipped, command=command_line(), progress=say)
    verdict = result["verdict"]
    lines = [verdict["sentence"], *verdict["reasons"], *(f"warning: {line}" for line in verdict["warnings"])]
    report_result(lines, folder, "RESULT.md", as_json=flags.as_json)


def _data(flags: DetectorFlags) -> DetectorData:
    """The files that are given, all of them, or awry's own."""
    from monitor.datasets import read_messages
    from probes.studies.detectors.plan import DetectorData, split_everyday
    from probes.studies.presets import detector_data

    if not flags.own_data:
        return detector_data()
    if flags.harmful is None or flags.harmless is None or flags.benign is None:
        raise SettingsError("harmful: give --harmful, --harmless and --benign together, or none of them")
    sides = [{each.group: each.text for each in read_messages(path)} for path in (flags.harmful, flags.harmless)]
    return DetectorData(_pairs(*sides), split_everyday(texts_of(flags.benign)))


def _pairs(harmful: dict[str, str], harmless: dict[str, str]) -> list[RequestPair]:
    from probes.studies.detectors.plan import RequestPair

    both = [group for group in harmful if group in harmless]
    if not both:
        raise SettingsError(
            "harmless: no line has the group of a harmful one; a field group names each pair in both files"
        )
    left = len(harmful) + len(harmless) - 2 * len(both)
    if left:
        say(f"{left} requests have no twin of the same group, and are left out")
    return [RequestPair(group, harmful[group], harmless[group]) for group in both]


def _families(flags: DetectorFlags) -> tuple[Family, ...]:
    from probes.attacks.families import named
    from probes.studies.detectors.plan import default_families

    given = named(flags.families.split(",")) if flags.families else default_families()
    return given if flags.attacked else ()


def _plan(
    flags: DetectorFlags, name: str, layout: Layout, max_tokens: int, families: tuple[Family, ...]
) -> DetectorPlan:
    from probes.studies.detectors.plan import default_plan

    return default_plan(
        layout,
        name=name,
        target_fpr=flags.target_fpr,
        permutations=flags.permutations,
        attacked=flags.attacked,
        families=families,
        max_tokens=max_tokens,
        seed=flags.seed,
    )
