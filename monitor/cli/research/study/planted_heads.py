"""`awry study planted-heads`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from monitor.cli import options as o
from monitor.cli.early import check_folder_out
from monitor.cli.inputs import command_line, state_folder
from monitor.cli.output import say
from monitor.cli.research.study.common import report_result
from monitor.cli.tree import Commands, takes

commands = Commands()


@dataclass(frozen=True, kw_only=True)
class PlantedFlags:
    """What is planted, and from which seeds."""

    behaviour: o.Behaviours = None
    seeds: o.Seeds = None
    out: o.StudyOut = None
    as_json: o.Json = False
    state_dir: o.StateDir = None


@commands.command("planted-heads")
@takes(PlantedFlags)
def planted_heads(flags: PlantedFlags) -> None:
    """Which methods find heads that are known to carry a behaviour? (Ships, Sahara, HSI, a probe, ablation)

    Trains adapters that change three query heads of the built-in model, a few minutes each, and lets each method name
    heads. Writes RESULT.json, RESULT.md and a picture to --out; what was trained and scored stays in the state folder,
    so that an interrupted study goes on.
    """
    from probes.model.builtin import SMOLLM2
    from probes.model.load import load_chat_model
    from probes.studies.planted_heads.run import PlantedPlan, run_planted_heads

    plan = PlantedPlan()
    plan = PlantedPlan(behaviours=tuple(flags.behaviour or plan.behaviours), seeds=tuple(flags.seeds or plan.seeds))
    folder = flags.out or Path("studies") / plan.name
    check_folder_out("out", folder)
    state = state_folder(flags.state_dir)
    load = partial(load_chat_model, SMOLLM2, state)
    result = run_planted_heads(load, folder, state / "planted-heads", plan, command=command_line(), progress=say)
    report_result(
        [result["verdict"]["sentence"], *result["verdict"]["reasons"]], folder, "RESULT.md", as_json=flags.as_json
    )
