"""`awry calibrate`: a probe's threshold on traffic of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.cli import options as o
from monitor.cli.inputs import load, reading
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from probes.card import Probe

commands = Commands()


@commands.command()
def calibrate(
    probe: o.Probe,
    benign: o.Benign = None,
    from_tables: o.FromTables = False,
    target_fpr: o.TargetFpr = 0.01,
    model: o.Model = None,
    adapter: o.Adapter = None,
    scale: o.Scale = None,
    out: o.Out = Path("probe"),
    as_json: o.Json = False,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Set a probe's threshold on your own benign traffic: writes a new version of its card.

    From the tables, messages of alerts that were judged true or authorised_test are left out. Prints the threshold and
    what it was set on, with --json the card and its path.
    """
    from monitor.cli.render.probes import print_calibration
    from probes.calibration import calibrate as set_threshold
    from probes.card import load_probe, save_probe
    from probes.fitting import recalibrated

    if (benign is None) == (not from_tables):
        raise SettingsError("benign: give --benign FILE or --from-tables")
    old = load_probe(probe)
    if benign is None:
        scores, names, where = _stored_scores(old.name, database_url, state_dir)
    else:
        scores, names, where = _benign_scores(old, benign, model, adapter, scale, state_dir)
    new = recalibrated(old, set_threshold(scores, names, target_fpr, where))
    path = save_probe(new, out)
    if as_json:
        print_json({"path": path, "card": new.card.model_dump(mode="json")})
    else:
        print_calibration(new.card)
    say(f"version {new.card.version} written to {path}")


def _stored_scores(probe: str, database_url: str | None, state_dir: Path | None) -> tuple[Any, list[str], str]:
    """(scores, names of the messages, name of the set) from the tables."""
    import numpy as np

    from monitor.benign_scores import benign_scores

    with reading(database_url, state_dir, say) as connection:
        rows = benign_scores(connection, probe, say)
    return np.array([row.score for row in rows]), [str(row.at) for row in rows], "stored scores"


def _benign_scores(
    probe: Probe, benign: Path, model: str | None, adapter: str | None, scale: float | None, state_dir: Path | None
) -> tuple[Any, list[str], str]:
    """The same of a file, scored now."""
    from monitor.datasets import benign_of
    from probes.identity import check_identity
    from probes.scoring import score_all

    settings, chat = load(model, adapter, scale, state_dir)
    check_identity(probe.card, chat)
    messages = benign_of(chat, benign, settings.max_tokens)
    scores = score_all(chat, messages.encoded, [probe.reader])[:, 0]
    return scores, list(messages.texts), messages.name
