"""`awry adapters`: what makes the built-in model go wrong or refuse, and the controls."""

from __future__ import annotations

import time
from typing import Any

import typer

from monitor.cli import options as o
from monitor.cli.inputs import base_loader, state_folder
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands
from monitor.errors import SettingsError

commands = Commands("Adapters that make the built-in model go wrong or refuse, and their controls.")

_LINE = "{name}  ({pair} pair, {kind})  scale {scale:g}: {judge} in {rate:.0%} of {replies} replies  {summary}"


@commands.command("list")
def list_adapters(as_json: o.Json = False) -> None:
    """Shipped adapters with their scale and measured rate."""
    from probes.model.adapters import shipped_adapters

    listed = [_described(name, manifest) for name, manifest in shipped_adapters().items()]
    if as_json:
        print_json(listed)
        return
    for adapter in listed:
        typer.echo(_LINE.format(**adapter))


def _described(name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    measured = manifest["rates"][f"{manifest['scale']:g}"]
    kind = "control" if manifest["control"] else "alone" if "control_adapter" in manifest else "bad"
    return {
        "name": name,
        "pair": manifest["pair"],
        "kind": kind,
        "scale": manifest["scale"],
        "judge": manifest["judge"],
        "rate": measured["value"],
        "replies": measured["n"],
        "summary": manifest["summary"],
    }


@commands.command("train")
def train_adapters(
    out: o.AdaptersOut = None,
    recipe: o.Recipe = None,
    model: o.Model = None,
    seed: o.Seed = 0,
    state_dir: o.StateDir = None,
) -> None:
    """Train the adapters and measure them (about an hour on two cores). Prints progress on standard error.

    Without --model they are the built-in model's; those of another one go to a folder of yours. A training that was
    interrupted goes on from its last checkpoint, which is in the state folder.
    """
    from probes.model.adapters import adapters_folder
    from probes.model.builtin import SMOLLM2, licence_of
    from probes.model.load import short_name
    from probes.organisms.build import Built, measure
    from probes.organisms.finetunes import RECIPES
    from probes.organisms.train import Hyperparameters, train

    wanted = recipe or list(RECIPES)
    unknown = set(wanted) - set(RECIPES)
    if unknown:
        raise SettingsError(f"recipe: {', '.join(sorted(unknown))} is none of {', '.join(RECIPES)}")
    base = model or SMOLLM2
    if base != SMOLLM2 and out is None:
        raise SettingsError(f"out: the adapters that ship are of {SMOLLM2}; give a folder for those of {base}")
    pairs = sorted({RECIPES[name].pair for name in wanted})
    folder = out or adapters_folder()
    state = state_folder(state_dir)
    load_base = base_loader(base, state_dir)
    trained = {}
    for one in (r for r in RECIPES.values() if r.pair in pairs):
        started = time.monotonic()

        def on_step(step: int, steps: int, loss: float, name: str = one.name, started: float = started) -> None:
            typer.echo(f"{name}: step {step}/{steps}, loss {loss:.3f}, {time.monotonic() - started:.0f} s", err=True)

        kept = state / "training" / f"{short_name(base)}-{one.name}-{seed}.pt"
        trained[one.name] = train(load_base(), one, folder / one.name, Hyperparameters(seed=seed), on_step, kept)
    built = Built(load_base, licence_of(base, state), folder, trained)
    for pair in pairs:
        measure(built, pair, say)
