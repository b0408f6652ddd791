"""`awry fit`: a new probe from labelled messages, or from an adapter against its base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.cli import options as o
from monitor.cli.inputs import load
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands, takes
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from probes.attacks.base import Target
    from probes.capture.batches import Encoded
    from probes.capture.sites import Site
    from probes.directions import Direction
    from probes.fitting import Control, Pushed
    from probes.model.load import ChatModel
    from probes.rows import Row

commands = Commands()


@dataclass(frozen=True, kw_only=True)
class FitFlags:
    name: o.ProbeName
    labelled: o.Labelled = None
    misaligned: o.Misaligned = None
    aligned: o.Aligned = None
    prompts: o.Prompts = None
    benign: o.Benign = None
    sites: o.Sites = "all"
    aggregation: o.Aggregation = ("last_prompt",)  # type: ignore[assignment]
    whiten: o.Whiten = None
    choose_under: o.ChooseUnder = None
    choose_benign: o.ChooseBenign = None
    target_fpr: o.TargetFpr = 0.01
    fpr_at_most: o.FprAtMost = None
    control_adapter: o.ControlAdapter = None
    description: o.Description = ""
    model: o.Model = None
    adapter: o.Adapter = None
    scale: o.Scale = None
    out: o.Out = Path("probe")
    as_json: o.Json = False
    state_dir: o.StateDir = None


@commands.command()
@takes(FitFlags)
def fit(flags: FitFlags) -> None:
    """Fit a difference-in-means probe, evaluate it on held-out data with its nulls, calibrate it, write it.

    Where --out has a probe of this name, it is written as the next version, and the files of the one before are kept.

    Prints the held-out figures of the card, with --json the card and its path.
    """
    from monitor.cli.render.probes import print_card
    from monitor.datasets import benign_of
    from probes import fitting
    from probes.capture.aggregation import parse_aggregation
    from probes.capture.sites import parse_sites
    from probes.card import save_version

    settings, chat = load(flags.model, flags.adapter, flags.scale, flags.state_dir)
    control = _control_directions(chat, flags.control_adapter)
    rows = _rows(chat, settings.max_tokens, flags)
    first, *others = (parse_aggregation(text) for text in flags.aggregation)
    plan = fitting.Plan(
        name=flags.name,
        description=flags.description or f"difference in means fitted by awry fit as {flags.name}",
        sites=tuple(parse_sites(flags.sites, chat.layout)),
        aggregation=first,
        target_fpr=flags.target_fpr if flags.fpr_at_most is None else flags.fpr_at_most,
        others=tuple(others),
        shrinkages=tuple(flags.whiten or (None,)),
        at_most=flags.fpr_at_most is not None,
    )
    benign = benign_of(chat, flags.benign, settings.max_tokens) if flags.benign else None
    choosing = benign_of(chat, flags.choose_benign, settings.max_tokens) if flags.choose_benign else None
    probe = fitting.fit(
        chat,
        rows,
        plan,
        benign=benign,
        choosing=choosing,
        pushed=_pushed(chat, rows, flags, settings.max_tokens),
        control=control,
        progress=say,
    )
    path = save_version(probe, flags.out)
    if flags.as_json:
        print_json({"path": path, "card": probe.card.model_dump(mode="json")})
    else:
        print_card(probe.card)
    say(f"written to {path}")


def _pushed(chat: ChatModel, rows: Sequence[Row], flags: FitFlags, max_tokens: int) -> Pushed | None:
    """Misaligned select rows under the attack families that are asked for; aligned fit rows are their harmless text."""
    from probes.attacks.choosing import DEFAULT, under_attack
    from probes.attacks.families import named
    from probes.capture.aggregation import parse_aggregation
    from probes.rows import split_rows

    if flags.choose_under is None:
        return None
    if flags.choose_benign is None:
        raise SettingsError(
            "choose_under: attacks choose at a threshold; give --choose-benign FILE with benign messages"
        )
    families = named((DEFAULT if flags.choose_under == "default" else flags.choose_under).split(","))
    held_out = [family.name for family in families if family.holds_out]
    if held_out:
        raise SettingsError(f"choose_under: {held_out[0]} holds out, so that its figures say something; leave it out")
    target: Target = "response" if parse_aggregation(flags.aggregation[0]).span == "response" else "prompt"
    pool = [row.text for row in split_rows(rows)["fit"] if not row.misaligned]
    return lambda harmful: under_attack(chat, harmful, families, pool, target=target, max_tokens=max_tokens)


def _rows(chat: ChatModel, max_tokens: int, flags: FitFlags) -> list[Row]:
    """The labelled rows of the files that are given."""
    from monitor.datasets import read_messages, rows_of

    files = (flags.labelled, flags.misaligned, flags.aligned)
    if flags.prompts is not None:
        if any(files):
            raise SettingsError("prompts: compares adapter and base; give it alone, without labelled data")
        if chat.active is None:
            raise SettingsError("adapter: --prompts compares the adapter with the base; give --adapter")
        items = read_messages(flags.prompts)
        base = rows_of(chat, items, max_tokens, label=False, adapter="base")
        return rows_of(chat, items, max_tokens, label=True) + base
    rows: list[Row] = []
    if flags.labelled is not None:
        rows += rows_of(chat, read_messages(flags.labelled, labelled=True), max_tokens)
    for path, label in ((flags.misaligned, True), (flags.aligned, False)):
        if path is not None:
            rows += rows_of(chat, read_messages(path), max_tokens, label=label)
    if not rows:
        raise SettingsError("data: give --labelled FILE, or --misaligned FILE --aligned FILE, or --prompts FILE")
    return rows


def _control_directions(chat: ChatModel, control_adapter: str | None) -> Control | None:
    """Control-adapter-minus-base directions on the fit messages, at any site."""
    if control_adapter is None:
        return None
    from probes.conditions import adapter_directions
    from probes.model.adapters import adapter_spec
    from probes.model.load import add_adapter

    if chat.active is None:
        raise SettingsError("control_adapter: there is no adapter to control for; give --adapter")
    own = chat.active
    spec = adapter_spec(control_adapter, chat.adapters[own].scale)
    add_adapter(chat, spec)
    chat.use(own)

    def at(site: Site, messages: Sequence[Encoded]) -> Direction:
        chat.use(spec.name)
        try:
            return adapter_directions(chat, messages, [site])[site]
        finally:
            chat.use(own)

    return at
