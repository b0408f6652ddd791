"""What people do with the registry of probes: add, compare, promote, roll back, retire.

Contract: within the caller's transaction; each change leaves an audit row. A probe that is added is loaded and checked
first, so that what is in the registry can be read; its name may not be that of a stage.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from sqlalchemy import Connection

from alerts.lifecycle.audit import Actor, write_audit_row
from monitor.errors import SettingsError
from monitor.service.registered import RESERVED, write
from probes.card import Card, Probe, load_probe, probe_files, save_probe
from probes.errors import ProbeFileError
from storage import probe_registry
from storage.probe_registry import Entry, RegistryError

Difference = tuple[str, str, str]


def register_files(
    connection: Connection, named: str, actor: Actor, as_version: int | None = None
) -> tuple[Entry, bool]:
    """Add the card at a path, or a shipped probe; whether it is new."""
    probe = load_probe(named)
    if probe.name in RESERVED:
        raise RegistryError(f"probe: {probe.name!r} is the name of a stage; fit the probe under another --name")
    if as_version is None or as_version == probe.card.version:
        card, tensors = (path.read_bytes() for path in probe_files(named))
    else:
        probe.card = probe.card.model_copy(update={"version": as_version})
        with tempfile.TemporaryDirectory() as folder:
            path = save_probe(probe, Path(folder))
            card, tensors = path.read_bytes(), path.with_suffix(".safetensors").read_bytes()
            probe = load_probe(path)
    entry, new = probe_registry.add(
        connection,
        digest=probe.digest,
        name=probe.name,
        version=probe.card.version,
        card=card,
        tensors=tensors,
        by=actor.who,
    )
    if new:
        write_audit_row(connection, actor, "add probe", after=_named(entry))
    return entry, new


def promote(connection: Connection, named: str, stage: str, actor: Actor) -> tuple[Entry, Entry | None]:
    """The entry in its new stage, and the one that was live before."""
    if stage not in ("live", "shadow"):
        raise SettingsError("stage: use live or shadow; awry probes retire takes a probe out of use")
    was = probe_registry.find(connection, named)
    entry, before = probe_registry.promote(connection, was, cast(Literal["live", "shadow"], stage))
    _audit_stage(connection, actor, "promote probe", was, entry, before)
    return entry, before


def roll_back(connection: Connection, name: str, actor: Actor) -> tuple[Entry, Entry | None]:
    """The entry that is live again, and the one that was live until now."""
    entry, before = probe_registry.roll_back(connection, name)
    _audit_stage(connection, actor, "roll back probe", None, entry, before)
    return entry, before


def retire(connection: Connection, named: str, actor: Actor) -> tuple[Entry, str]:
    """The entry, and the stage in which it was."""
    was = probe_registry.find(connection, named)
    entry = probe_registry.retire(connection, was)
    _audit_stage(connection, actor, "retire probe", was, entry, None)
    return entry, was.stage


def card_of(card: bytes, tensors: bytes) -> Card:
    return _loaded(card, tensors).card


def probe_of(connection: Connection, named: str) -> Probe:
    """A registered probe, else a shipped one or the one whose card is at this path."""
    try:
        entry = probe_registry.find(connection, named)
    except RegistryError as unknown:
        try:
            return load_probe(named)
        except ProbeFileError:
            raise unknown from None
    return _loaded(*probe_registry.files(connection, entry.digest))


def differences(one: Probe, other: Probe) -> list[Difference]:
    """(what, of one, of the other) of all that differs, for people; and how alike their directions are."""
    left, right = _facts(one), _facts(other)
    found = [
        (what, left.get(what, "-"), right.get(what, "-"))
        for what in dict.fromkeys((*left, *right))
        if left.get(what) != right.get(what)
    ]
    sites = {str(d.site): d.vector for d in other.directions}
    for direction in one.directions:
        vector = sites.get(str(direction.site))
        if vector is not None and found:
            cosine = float(np.dot(direction.vector, vector) / np.linalg.norm(direction.vector) / np.linalg.norm(vector))
            found.append((f"cosine of the directions at {direction.site}", f"{cosine:.3f}", f"{cosine:.3f}"))
    return found


def _facts(probe: Probe) -> dict[str, str]:
    card = probe.card
    calibration = card.calibration
    report = card.evaluation
    facts: dict[str, Any] = {
        "digest": probe.digest,
        "version": card.version,
        "created": card.created,
        "description": card.description,
        **{f"model: {name}": value for name, value in asdict(card.identity).items()},
        "sites": ", ".join(d.site for d in card.directions),
        "aggregation": card.aggregation,
        "combine": card.combine,
        "method": card.method,
        "threshold": f"{card.threshold:.4f}",
        "target FPR": calibration.target_fpr,
        "calibrated on": f"{calibration.n} messages of {calibration.set_name}, {calibration.made}",
        "FPR there": calibration.fpr,
        "tolerance": card.tolerance,
        "mitigation": None if card.mitigation is None else f"{card.mitigation.mode} at {card.mitigation.site}",
    }
    test = report.get("test") or {}
    at = report.get("at_threshold") or {}
    for what, value in (("AUROC", test.get("auroc")), ("TPR", at.get("tpr")), ("FPR", at.get("fpr"))):
        if value:
            facts[f"held-out {what}"] = (
                f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}] of {value['n']}"
            )
    families = (card.attacks or {}).get("families") or []
    if families:
        worst = min(families, key=lambda family: family["tpr"]["value"])
        facts["worst attack family"] = f"{worst['family']}, TPR {worst['tpr']['value']:.3f}"
    return {what: "-" if value is None else str(value) for what, value in facts.items()}


def _loaded(card: bytes, tensors: bytes) -> Probe:
    """From the registry's bytes, by the same checks as from files."""
    name = str(json.loads(card)["name"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.json"
        write(path.with_suffix(".safetensors"), tensors)
        write(path, card)
        return load_probe(path)


def _named(entry: Entry) -> dict[str, Any]:
    return {"probe": entry.name, "version": entry.version, "digest": entry.digest, "stage": entry.stage}


def _audit_stage(
    connection: Connection, actor: Actor, action: str, was: Entry | None, entry: Entry, before: Entry | None
) -> None:
    after = _named(entry) | ({"instead_of": before.digest} if before is not None else {})
    write_audit_row(connection, actor, action, before=_named(was) if was is not None else None, after=after)
