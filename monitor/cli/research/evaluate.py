"""`awry eval`: a probe on labelled data."""

from __future__ import annotations

from pathlib import Path

from monitor.cli import options as o
from monitor.cli.inputs import load
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands

commands = Commands()


@commands.command("eval")
def evaluate(
    probe: o.Probe,
    labelled: o.RequiredLabelled,
    model: o.Model = None,
    adapter: o.Adapter = None,
    scale: o.Scale = None,
    png: o.Png = None,
    as_json: o.Json = False,
    state_dir: o.StateDir = None,
) -> None:
    """Run a probe on labelled data: a table with intervals and a picture."""
    import numpy as np

    from monitor.cli.render.probes import print_evaluation
    from monitor.datasets import encode_all, read_messages
    from probes.card import load_probe
    from probes.evaluation import evaluate as evaluate_scores
    from probes.fitting import at_threshold
    from probes.identity import check_identity
    from probes.plots import plot_evaluation
    from probes.scoring import score_all

    loaded = load_probe(probe)
    items = read_messages(labelled, labelled=True)
    settings, chat = load(model, adapter, scale, state_dir)
    check_identity(loaded.card, chat)
    scores = score_all(chat, encode_all(chat, items, settings.max_tokens), [loaded.reader])[:, 0].astype(float)
    labels = np.array([bool(i.label) for i in items])
    result, at = evaluate_scores(scores, labels), at_threshold(scores, labels, loaded.card.calibration)
    picture = png or Path(f"{loaded.name}.{labelled.stem}.png")
    plot_evaluation(scores, labels, loaded.card.threshold, result, f"{loaded.name} on {labelled.name}", picture)
    if as_json:
        print_json(
            {
                "probe": loaded.name,
                "version": loaded.card.version,
                "data": labelled,
                "evaluation": result,
                "at_threshold": at,
                "picture": picture,
            }
        )
    else:
        print_evaluation(result, at, loaded.name, labelled.name)
    say(f"picture: {picture}")
