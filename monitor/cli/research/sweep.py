"""`awry sweep`: where and how to remove a behaviour."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from monitor.cli import options as o
from monitor.cli.early import check_folder_out
from monitor.cli.inputs import load, numbers_of, texts_of
from monitor.cli.output import say
from monitor.cli.tree import Commands, takes
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from probes.studies.mitigation import Sweep

commands = Commands()


@dataclass(frozen=True, kw_only=True)
class SweepFlags:
    adapter: o.RequiredAdapter
    fit_prompts: o.RequiredFitPrompts
    select_prompts: o.RequiredSelectPrompts
    test_prompts: o.RequiredTestPrompts
    metric: o.Judge = "code"
    control_adapter: o.ControlAdapter = None
    blocks: o.Blocks = ""
    attach: o.Attach = None
    model: o.Model = None
    scale: o.StudyScale = 1.0
    out: o.Out = Path("sweep")
    as_json: o.Json = False
    state_dir: o.StateDir = None


@commands.command()
@takes(SweepFlags)
def sweep(flags: SweepFlags) -> None:
    """Choose where and how to remove a behaviour, on one split, and report it with controls on another.

    Writes sweep.json and prints the table of the test split, with --json what sweep.json holds.
    """
    from monitor.cli.render.probes import print_sweep
    from probes.card import load_probe
    from probes.model.adapters import adapter_spec
    from probes.model.load import add_adapter
    from probes.organisms.judges import JUDGES
    from probes.studies import mitigation
    from probes.studies.metric import parse_metric

    metric = parse_metric(flags.metric, JUDGES)
    check_folder_out("out", flags.out)
    blocks = _blocks(flags.blocks)
    control_spec = adapter_spec(flags.control_adapter, flags.scale) if flags.control_adapter is not None else None
    if flags.attach is not None:
        load_probe(flags.attach)
    prompts = mitigation.Prompts(*map(texts_of, (flags.fit_prompts, flags.select_prompts, flags.test_prompts)))
    _, chat = load(flags.model, flags.adapter, flags.scale, flags.state_dir)
    bad = chat.active
    control = None
    if control_spec is not None:
        add_adapter(chat, control_spec)
        control = control_spec.name
    chat.use(str(bad))
    result = mitigation.sweep(
        chat,
        prompts,
        metric,
        blocks=blocks or _from_a_third(chat.layout.n_blocks),
        control_adapter=control,
        progress=say,
    )
    flags.out.mkdir(parents=True, exist_ok=True)
    path = flags.out / "sweep.json"
    path.write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    if flags.as_json:
        typer.echo(path.read_text(encoding="utf-8"), nl=False)
    else:
        print_sweep(result)
    if flags.attach is not None:
        say(f"recipe attached: {_attach_recipe(flags.attach, result, flags.scale)}")
    say(f"written to {path}")


def _blocks(written: str) -> list[int]:
    """Those that are given."""
    numbers = numbers_of("blocks", written) if written else ()
    if not all(number.is_integer() and number >= 0 for number in numbers):
        raise SettingsError(f"blocks: {written!r} is no list of blocks such as 10,15,20")
    return [int(number) for number in numbers]


def _from_a_third(n_blocks: int) -> list[int]:
    """Six blocks, from a third of the depth on."""
    return sorted({round(n_blocks * share) for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)})


def _attach_recipe(path: Path, result: Sweep, scale: float) -> Path:
    """Give a probe the recipe that a sweep chose, as its next version; returns the new card's path."""
    from probes.card import load_probe, save_version
    from probes.steer.recipe import with_recipe

    probe = load_probe(path)
    names = ("no intervention", str(result.chosen), "control adapter's direction")
    conditions = [c for c in result.as_dict()["test"] if c["name"] in names]
    measured = {"adapter_scale": scale, "verdict": result.verdict.sentence, "test": conditions}
    new = with_recipe(probe, [result.chosen], measured)
    new.card = new.card.model_copy(update={"version": probe.card.version + 1})
    return save_version(new, path.parent)
