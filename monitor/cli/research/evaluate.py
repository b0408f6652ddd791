"""`awry eval`: a probe on labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from monitor.cli import options as o
from monitor.cli.early import check_file_out
from monitor.cli.inputs import load
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from monitor.datasets import Labelled
    from monitor.settings import Settings
    from probes.attacks.base import Family
    from probes.attacks.report import AttackReport
    from probes.card import Probe as LoadedProbe
    from probes.model.load import ChatModel

commands = Commands()


@commands.command("eval")
def evaluate(
    probe: o.Probe,
    labelled: o.RequiredLabelled,
    model: o.Model = None,
    adapter: o.Adapter = None,
    scale: o.Scale = None,
    chat_template: o.ChatTemplate = None,
    png: o.Png = None,
    attacks: o.Attacks = False,
    families: o.Families = None,
    fail_under: o.FailUnder = None,
    fail_over: o.FailOver = None,
    as_json: o.Json = False,
    state_dir: o.StateDir = None,
) -> None:
    """Run a probe on labelled data: a table with intervals and a picture.

    Says how many of the messages the probe was fitted, chosen or calibrated on, as far as its card knows.

    With --attacks also the suite of awry attack, on the misaligned and half of the aligned messages.

    As a gate in CI: with --fail-under and --fail-over it prints all figures, then a line for each limit that was
    missed, and exits with status 1 if there is one.
    """
    import numpy as np

    from monitor.cli.render.attacks import print_attacks
    from monitor.cli.render.probes import print_evaluation
    from monitor.datasets import read_messages
    from probes.attacks.families import named
    from probes.attacks.picture import plot_attacks
    from probes.card import load_probe
    from probes.evaluation import evaluate as evaluate_scores
    from probes.fitting import at_threshold
    from probes.identity import check_identity
    from probes.limits import check_limits, figures_of, parse_limits
    from probes.plots import plot_evaluation
    from probes.reading import score_conversations
    from probes.seen import seen_among, seen_warning

    if families is not None and not attacks:
        raise SettingsError("families: of the attack suite; give --attacks too")
    limits = parse_limits(fail_under or (), fail_over or (), attacks=attacks)
    chosen_families = named((families or "").split(","))
    loaded = load_probe(probe)
    items = read_messages(labelled, labelled=True)
    picture = png or Path(f"{loaded.name}.{labelled.stem}.png")
    check_file_out("png", picture)
    settings, chat = load(model, adapter, scale, state_dir, chat_template)
    check_identity(loaded.card, chat)
    conversations = [each.conversation for each in items]
    scores = score_conversations(
        chat, [loaded], conversations, max_tokens=settings.max_tokens, max_windows=settings.max_windows
    )[:, 0]
    unscored = int(np.isnan(scores).sum())
    if unscored:
        raise SettingsError(
            f"labelled: {unscored} messages of {labelled.name} have nothing that {loaded.name} reads "
            f"({loaded.card.aggregation}); leave them out"
        )
    labels = np.array([bool(i.label) for i in items])
    result = evaluate_scores(scores, labels, groups=[each.group for each in items])
    at = at_threshold(scores, labels, loaded.card.calibration)
    plot_evaluation(scores, labels, loaded.card.threshold, result, f"{loaded.name} on {labelled.name}", picture)
    suite = _attacked(chat, loaded, items, chosen_families, settings, labelled.name) if attacks else None
    if suite is not None:
        plot_attacks(suite, picture.with_suffix(".attacks.png"))
    seen = seen_among(loaded.card.seen, [each.text for each in items])
    checked = check_limits(limits, figures_of(result, at, suite))
    if as_json:
        document = {
            "probe": loaded.name,
            "version": loaded.card.version,
            "data": labelled,
            "evaluation": result,
            "at_threshold": at,
            "seen": seen,
            "picture": picture,
        }
        document |= {"limits": [each.plain() for each in checked]} if checked else {}
        print_json(document if suite is None else document | {"attacks": suite.plain()})
    else:
        print_evaluation(result, at, loaded.name, labelled.name)
        if suite is not None:
            print_attacks(suite)
    say(f"picture: {picture}")
    warning = seen_warning(seen, len(items), loaded.name)
    if warning is not None:
        say(warning)
    missed = [each for each in checked if each.reason is not None]
    for each in missed:
        say(f"{each.limit.side}: {each.reason}")
    if missed:
        raise typer.Exit(1)


def _attacked(
    chat: ChatModel,
    probe: LoadedProbe,
    items: Sequence[Labelled],
    families: tuple[Family, ...],
    settings: Settings,
    name: str,
) -> AttackReport:
    """The attack suite on the same messages."""
    from monitor.cli.research.attack import chosen
    from probes.attacks.suite import SuitePlan, run_suite

    messages = chosen([i for i in items if i.label], [i for i in items if not i.label], None, 0, name)
    plan = SuitePlan(families, max_tokens=settings.max_tokens, max_windows=settings.max_windows)
    return run_suite(chat, probe, messages.harmful, messages.benign, pool=messages.pool, plan=plan, progress=say)
