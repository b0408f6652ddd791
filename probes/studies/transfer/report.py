"""Summary of a transfer study: figures, verdicts, tables and pictures from what was measured.

`gain` is the share of good answers (no behaviour, and coherent) under a direction minus that without one; `drop` is
the share of bad answers taken away, which noise takes away as well. Intervals are 95 %: exact binomial for rates,
and for differences in one pair and means over pairs those of `means`. Verdicts are those of `verdict`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.evaluation import from_chance, rate
from probes.statistics.nulls import rank_among
from probes.steer.contrast import ContrastOutcome
from probes.steer.steering import Mode
from probes.studies.framework.result import write_measured
from probes.studies.plots import plot_matrices, plot_two_ways
from probes.studies.transfer.detection import Detection
from probes.studies.transfer.means import NULLS, asymmetry, difference, group_means, over_models, overall_means
from probes.studies.transfer.plan import Measured, Pair, Receiver
from probes.studies.transfer.tables import markdown
from probes.studies.transfer.verdict import detection_verdict, draws_warning, mode_verdict, pair_verdict


def write(result: dict[str, Any], folder: Path) -> None:
    """Write RESULT.json, TRANSFER.md and the two PNGs of a result."""
    write_measured(folder, "transfer", result, partial(round, ndigits=4))
    (folder / "TRANSFER.md").write_text(markdown(result))
    names = [s["name"] for s in result["subjects"]]
    mode = result["plan"]["modes"][0]
    plot_matrices(
        [
            ("R2 on held-out anchors", _matrix(result, names, lambda p: p["r2"])),
            ("cosine to the receiver's own direction", _matrix(result, names, lambda p: p["cosine"])),
            (f"gain in good answers ({mode})", _matrix(result, names, lambda p: p["modes"][mode]["gain"]["value"])),
            (
                f"gain over the mean control ({mode})",
                _matrix(result, names, lambda p: p["modes"][mode]["over_controls"]["value"]),
            ),
        ],
        names,
        "donor (row) to receiver (column)",
        folder / "transfer.png",
    )
    asymmetry = result["asymmetry"][mode]
    plot_two_ways(
        {name: (g["as_donor"], g["as_receiver"]) for name, g in asymmetry["groups"].items()},
        ("as donor", "as receiver"),
        f"mean gain in good answers ({mode})",
        folder / "asymmetry.png",
    )


def summarise(measured: Measured, left_out: dict[str, str]) -> dict[str, Any]:
    """Everything as plain data."""
    settings = measured.settings
    groups = {r.subject.name: r.subject.group for r in measured.readings}
    receivers = {r.subject.name: v for r, v in zip(measured.readings, measured.receivers, strict=True)}
    pairs = [_pair(p, receivers[p.receiver], settings.modes) for p in measured.pairs]
    detection = _detections(measured, groups)
    verdicts = {mode: mode_verdict(pairs, groups, mode) for mode in settings.modes}
    primary = verdicts[settings.modes[0]]
    return {
        "model": {r.subject.name: r.identity for r in measured.readings},
        "data": {"anchors": measured.anchors},
        "plan": asdict(settings),
        "verdict": replace(
            primary,
            why=f"{settings.modes[0]}: {primary.why}",
            reasons=[f"{mode}: {verdict}" for mode, verdict in verdicts.items()],
            warnings=draws_warning(settings.draws),
        ).as_dict(),
        "verdicts": {mode: verdict.as_dict() for mode, verdict in verdicts.items()}
        | {"detection": detection_verdict(detection).as_dict()},
        "notes": sorted({r.subject.note for r in measured.readings if r.subject.note}),
        "anchors": measured.anchors,
        "left_out": left_out,
        "subjects": [
            {
                "name": r.subject.name,
                "group": r.subject.group,
                "identity": r.identity,
                "site": str(r.native.site),
                "width": len(r.native.vector),
                "native_norm": r.native.norm,
                "questions": {"fit": len(r.subject.fit), "test": len(r.subject.test)},
                "detection": _detection(v.detection),
                **_receiver(v, settings.modes),
            }
            for r, v in zip(measured.readings, measured.receivers, strict=True)
        ],
        "pairs": pairs,
        "overall": {mode: overall_means(pairs, groups, mode) for mode in settings.modes},
        "groups": {mode: group_means(pairs, groups, mode) for mode in settings.modes},
        "asymmetry": {mode: asymmetry(pairs, groups, mode) for mode in settings.modes},
        "detection": detection,
    }


def _pair(pair: Pair, receiver: Receiver, modes: Sequence[Mode]) -> dict[str, Any]:
    null = pair.cosine_null
    return {
        "donor": pair.donor,
        "receiver": pair.receiver,
        "r2": pair.map.r2,
        "r2_median_dimension": pair.map.r2_median,
        "r2_shuffled": float(np.mean(pair.shuffled_r2)),
        "penalty": pair.map.penalty,
        "penalty_at_edge": pair.map.at_edge,
        "anchors_fitted": pair.map.fitted,
        "anchors_held_out": pair.map.held_out,
        "cosine": pair.cosine,
        "cosine_null": {
            "draws": len(null),
            "low": float(np.quantile(null, 0.025)),
            "high": float(np.quantile(null, 0.975)),
            "p": rank_among(abs(pair.cosine), np.abs(null)).p,
        },
        "cosine_shuffled": pair.shuffled_cosines,
        "detection": _detection(pair.detection),
        "modes": {mode: _effect(pair, receiver, mode) for mode in modes},
    }


def _detection(detection: Detection) -> dict[str, Any]:
    return {
        "auroc": asdict(detection.test),
        "controls": {
            kind: {"n": len(v), "mean": float(np.mean(v)), "most": max(map(from_chance, v))}
            for kind, v in detection.controls.items()
        },
        "over_controls": detection.over_controls,
    }


def _effect(pair: Pair, receiver: Receiver, mode: Mode) -> dict[str, Any]:
    mapped, before = pair.mapped[mode], receiver.untouched
    nulls = dict(zip(NULLS, (pair.random_source[mode], pair.shuffled[mode], receiver.random[mode]), strict=True))
    over = {name: difference(mapped.good, [o.good for o in outcomes]) for name, outcomes in nulls.items()}
    best = max(float(o.good.mean()) for outcomes in nulls.values() for o in outcomes)
    gain = difference(mapped.good, [before.good])
    drop = difference(before.behaviour, [mapped.behaviour])
    own = float(receiver.native[mode].good.mean() - before.good.mean())
    return {
        "mapped": _condition(mapped),
        **{name: _conditions(outcomes) for name, outcomes in nulls.items()},
        "gain": asdict(gain),
        "drop": asdict(drop),
        "drop_controls": {
            name: float(before.behaviour.mean() - np.mean([o.behaviour.mean() for o in outcomes]))
            for name, outcomes in nulls.items()
        },
        "own_gain": own,
        "over": {name: asdict(value) for name, value in over.items()},
        "over_controls": asdict(difference(mapped.good, [o.good for outcomes in nulls.values() for o in outcomes])),
        "best_control_good": best,
        "verdict": pair_verdict(own, gain, drop, list(over.values()), float(mapped.good.mean()) > best),
    }


def _receiver(receiver: Receiver, modes: Sequence[Mode]) -> dict[str, Any]:
    return {
        "aligned": _condition(receiver.aligned),
        "untouched": _condition(receiver.untouched),
        "modes": {
            mode: {
                "own": _condition(receiver.native[mode]),
                "random": _conditions(receiver.random[mode]),
                "orthogonal": _condition(receiver.orthogonal[mode]),
                "wrong_layer": _condition(receiver.elsewhere[mode]) if receiver.elsewhere else None,
            }
            for mode in modes
        },
    }


def _condition(outcome: ContrastOutcome) -> dict[str, Any]:
    n = len(outcome.behaviour)
    return {
        "bad": asdict(rate(int(outcome.behaviour.sum()), n)),
        "good": asdict(rate(int(outcome.good.sum()), n)),
        "nll": outcome.nll,
        "change": outcome.change,
    }


def _conditions(outcomes: Sequence[ContrastOutcome]) -> dict[str, Any]:
    bad, good = ([float(getattr(o, name).mean()) for o in outcomes] for name in ("behaviour", "good"))
    return {
        "draws": len(outcomes),
        "bad": {"mean": float(np.mean(bad)), "least": min(bad)},
        "good": {"mean": float(np.mean(good)), "most": max(good)},
        "change": float(np.mean([o.change for o in outcomes])),
    }


def _detections(measured: Measured, groups: dict[str, str]) -> dict[str, Any]:
    """Means over pairs of different groups (over all pairs when there is one group)."""
    across = [p for p in measured.pairs if groups[p.donor] != groups[p.receiver]] or measured.pairs
    own = {r.subject.name: v.detection.test.value for r, v in zip(measured.readings, measured.receivers, strict=True)}
    ends = [
        {
            "donor": p.donor,
            "receiver": p.receiver,
            "mapped": p.detection.test.value,
            "own": own[p.receiver],
            "over_controls": p.detection.over_controls,
        }
        for p in across
    ]
    figures = ("mapped", "own", "over_controls")
    return {"pairs": len(ends), **{name: asdict(over_models(ends, itemgetter(name))) for name in figures}}


def _matrix(
    result: dict[str, Any], names: Sequence[str], value: Callable[[dict[str, Any]], float]
) -> NDArray[np.float64]:
    matrix = np.full((len(names), len(names)), np.nan)
    for pair in result["pairs"]:
        matrix[names.index(pair["donor"]), names.index(pair["receiver"])] = value(pair)
    return matrix
