"""`awry fit`: a new probe from labelled messages, or from an adapter against its base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.cli import options as o
from monitor.cli.early import check_folder_out, check_share
from monitor.cli.inputs import check_choice, load_by
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands, takes
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from monitor.datasets import Labelled
    from monitor.settings import Settings
    from probes.attacks.base import Family, Target
    from probes.capture.aggregation import Aggregation
    from probes.capture.batches import Encoded
    from probes.capture.sites import Site
    from probes.directions import Direction
    from probes.fitting import Control, Pushed
    from probes.model.load import ChatModel
    from probes.rows import AdapterState, Row

commands = Commands()

_METHODS = {"mean-difference": "difference in means", "logistic": "logistic regression"}


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
    method: o.FitMethod = "mean-difference"
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
    chat_template: o.ChatTemplate = None
    out: o.Out = Path("probe")
    as_json: o.Json = False
    state_dir: o.StateDir = None


@commands.command()
@takes(FitFlags)
def fit(flags: FitFlags) -> None:
    """Fit a probe, evaluate it on held-out data with its nulls, calibrate it, write it.

    Its direction is the difference of the classes' means, or with --method logistic that of a logistic regression.

    Where --out has a probe of this name, it is written as the next version, and the files of the one before are kept.

    Prints the held-out figures of the card, with --json the card and its path.
    """
    from monitor.cli.render.probes import print_card
    from monitor.datasets import benign_of, read_benign
    from monitor.settings import load_settings
    from probes import fitting
    from probes.capture.aggregation import parse_aggregation
    from probes.capture.sites import parse_sites
    from probes.card import save_version
    from probes.logistic import PENALTIES

    settings = load_settings(
        model=flags.model,
        adapter=flags.adapter,
        scale=flags.scale,
        chat_template=flags.chat_template,
        state_dir=flags.state_dir,
    )
    _check(flags, settings)
    families = _families(flags)
    first, *others = (parse_aggregation(text) for text in flags.aggregation)
    data = _read(flags)
    benign_data = read_benign(flags.benign) if flags.benign else None
    choosing_data = read_benign(flags.choose_benign) if flags.choose_benign else None
    chat = load_by(settings)
    control = _control_directions(chat, flags.control_adapter)
    rows = [row for part in data for row in part.rows(chat, settings.max_tokens)]
    plan = fitting.Plan(
        name=flags.name,
        description=flags.description or f"{_METHODS[flags.method]} fitted by awry fit as {flags.name}",
        sites=tuple(parse_sites(flags.sites, chat.layout)),
        aggregation=first,
        target_fpr=flags.target_fpr if flags.fpr_at_most is None else flags.fpr_at_most,
        others=tuple(others),
        shrinkages=tuple(flags.whiten or (None,)),
        penalties=PENALTIES if flags.method == "logistic" else (None,),
        at_most=flags.fpr_at_most is not None,
    )
    benign, choosing = (
        benign_of(chat, messages, path.name, settings.max_tokens) if messages and path else None
        for messages, path in ((benign_data, flags.benign), (choosing_data, flags.choose_benign))
    )
    probe = fitting.fit(
        chat,
        rows,
        plan,
        benign=benign,
        choosing=choosing,
        pushed=_pushed(chat, rows, families, plan.aggregation, settings.max_tokens),
        control=control,
        progress=say,
    )
    path = save_version(probe, flags.out)
    if flags.as_json:
        print_json({"path": path, "card": probe.card.model_dump(mode="json")})
    else:
        print_card(probe.card)
    say(f"written to {path}")


def _check(flags: FitFlags, settings: Settings) -> None:
    """What can be known to be wrong without a model."""
    from probes.capture.sites import read_sites
    from probes.model.adapters import adapter_spec

    check_share("target_fpr", flags.target_fpr)
    check_share("fpr_at_most", flags.fpr_at_most)
    check_choice("method", flags.method, tuple(_METHODS))
    if flags.method == "logistic" and flags.whiten:
        raise SettingsError("whiten: goes with --method mean-difference; logistic regression weighs dimensions itself")
    for shrinkage in flags.whiten or ():
        if not 0 < shrinkage <= 1:
            raise SettingsError(f"whiten: {shrinkage:g} is not above 0 and at most 1")
    read_sites(flags.sites)
    check_folder_out("out", flags.out)
    if flags.control_adapter is not None:
        if settings.adapter is None:
            raise SettingsError("control_adapter: there is no adapter to control for; give --adapter")
        adapter_spec(flags.control_adapter)
    if flags.prompts is not None and any((flags.labelled, flags.misaligned, flags.aligned)):
        raise SettingsError("prompts: compares adapter and base; give it alone, without labelled data")
    if flags.prompts is not None and settings.adapter is None:
        raise SettingsError("adapter: --prompts compares the adapter with the base; give --adapter")


def _families(flags: FitFlags) -> tuple[Family, ...]:
    """The attack families to choose under."""
    from probes.attacks.choosing import DEFAULT
    from probes.attacks.families import named

    if flags.choose_under is None:
        return ()
    if flags.choose_benign is None:
        raise SettingsError(
            "choose_under: attacks choose at a threshold; give --choose-benign FILE with benign messages"
        )
    families = named((DEFAULT if flags.choose_under == "default" else flags.choose_under).split(","))
    held_out = [family.name for family in families if family.holds_out]
    if held_out:
        raise SettingsError(f"choose_under: {held_out[0]} holds out, so that its figures say something; leave it out")
    return families


def _pushed(
    chat: ChatModel, rows: Sequence[Row], families: tuple[Family, ...], aggregation: Aggregation, max_tokens: int
) -> Pushed | None:
    """Misaligned select rows under the attack families that are asked for; aligned fit rows are their harmless text."""
    from probes.attacks.choosing import under_attack
    from probes.rows import split_rows

    if not families:
        return None
    target: Target = "response" if aggregation.span == "response" else "prompt"
    pool = [row.text for row in split_rows(rows)["fit"] if not row.misaligned]
    return lambda harmful: under_attack(chat, harmful, families, pool, target=target, max_tokens=max_tokens)


@dataclass(frozen=True)
class _Part:
    """Messages to fit on, with what all of them are where their own labels do not say it."""

    messages: list[Labelled]
    label: bool | None = None
    adapter: AdapterState = "active"

    def rows(self, chat: ChatModel, max_tokens: int) -> list[Row]:
        from monitor.datasets import rows_of

        return rows_of(chat, self.messages, max_tokens, label=self.label, adapter=self.adapter)


def _read(flags: FitFlags) -> list[_Part]:
    """The labelled messages of the files that are given."""
    from monitor.datasets import read_messages

    if flags.prompts is not None:
        items = read_messages(flags.prompts)
        return [_Part(items, True), _Part(items, False, "base")]
    parts = []
    if flags.labelled is not None:
        parts.append(_Part(read_messages(flags.labelled, labelled=True)))
    for path, label in ((flags.misaligned, True), (flags.aligned, False)):
        if path is not None:
            parts.append(_Part(read_messages(path), label))
    if not parts:
        raise SettingsError("data: give --labelled FILE, or --misaligned FILE --aligned FILE, or --prompts FILE")
    return parts


def _control_directions(chat: ChatModel, control_adapter: str | None) -> Control | None:
    """Control-adapter-minus-base directions on the fit messages, at any site."""
    if control_adapter is None:
        return None
    from probes.conditions import adapter_directions
    from probes.model.adapters import adapter_spec
    from probes.model.load import add_adapter

    own = str(chat.active)
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
