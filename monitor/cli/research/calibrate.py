"""`awry calibrate`: a probe's threshold on traffic of your own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.cli import options as o
from monitor.cli.early import check_folder_out, check_share
from monitor.cli.inputs import LoadFlags, load, reading
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
    fpr_at_most: o.FprAtMost = None,
    model: o.Model = None,
    adapter: o.Adapter = None,
    scale: o.Scale = None,
    chat_template: o.ChatTemplate = None,
    out: o.Out = Path("probe"),
    as_json: o.Json = False,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Set a probe's threshold on your own benign traffic: writes a new version of its card.

    Where --out has a probe of this name, the files of that one are kept, as NAME.vN.json and .safetensors.

    From the tables, messages of alerts that were judged true or authorised_test are left out. Prints the threshold and
    what it was set on, with --json the card and its path.
    """
    from monitor.cli.render.probes import print_calibration
    from probes.calibration import calibrate as set_threshold
    from probes.card import load_probe, save_version
    from probes.fitting import recalibrated
    from probes.seen import row_set

    if (benign is None) == (not from_tables):
        raise SettingsError("benign: give --benign FILE or --from-tables")
    check_share("target_fpr", target_fpr)
    check_share("fpr_at_most", fpr_at_most)
    check_folder_out("out", out)
    old = load_probe(probe)
    if benign is None:
        found = _stored_scores(old, database_url, state_dir)
    else:
        found = _benign_values(old, benign, (model, adapter, scale, state_dir, chat_template))
    calibration = set_threshold(
        found.values,
        found.names,
        target_fpr if fpr_at_most is None else fpr_at_most,
        found.where,
        tokens=found.tokens,
        at_most=fpr_at_most is not None,
    )
    if found.tokens is None:
        # Stored scores are corrected for length as the card says.
        calibration = replace(calibration, length=old.card.calibration.length)
    # Stored scores are without their texts.
    new = recalibrated(old, calibration, None if from_tables else row_set(found.names))
    path = save_version(new, out)
    if as_json:
        print_json({"path": path, "card": new.card.model_dump(mode="json")})
    else:
        print_calibration(new.card)
    say(f"version {new.card.version} written to {path}")


@dataclass(frozen=True)
class _Found:
    """Benign values, the names or texts of their messages, the set's name, and how many tokens each is of."""

    values: Any
    names: list[str]
    where: str
    tokens: list[int] | None = None


def _stored_scores(probe: Probe, database_url: str | None, state_dir: Path | None) -> _Found:
    """Scores from the tables."""
    import numpy as np

    from monitor.benign_scores import benign_scores

    with reading(database_url, state_dir, say) as connection:
        rows = benign_scores(connection, probe.name, probe.digest, say)
    return _Found(np.array([row.score for row in rows]), [str(row.at) for row in rows], "stored scores")


def _benign_values(probe: Probe, benign: Path, given: LoadFlags) -> _Found:
    """The messages of a file, read now."""
    import numpy as np

    from monitor.datasets import read_benign
    from probes.identity import check_identity
    from probes.reading import read_values

    items = read_benign(benign)
    settings, chat = load(*given)
    check_identity(probe.card, chat)
    read = read_values(
        chat,
        [probe.reader],
        [each.conversation for each in items],
        max_tokens=settings.max_tokens,
        max_windows=settings.max_windows,
    )
    scored = np.flatnonzero(np.isfinite(read.values[:, 0]))
    if len(scored) < len(items):
        say(f"{len(items) - len(scored)} of {len(items)} messages have nothing that the probe reads, and are left out")
    return _Found(
        read.values[scored, 0],
        [items[i].text for i in scored],
        benign.name,
        read.tokens[scored, 0].tolist(),
    )
