"""Figures of a study between families from what was measured: effects, controls, verdicts, tiers and the two ways.

Units: an effect is the mean change of the margin between a refusing and an agreeing opening, in nats a token, counted
in the aim's own sense (towards refusing, or away from it); shares are of the test requests. Intervals are 95 %: AUROC
with pairs as clusters, effects by Student's t over requests. p is the rank of the figure among random directions of
equal size, (1 + those at least as large) / (1 + draws): no smaller than 1 / 21 with 20 draws.

`kept` is what a mapped direction keeps of the receiver's own: AUROC above chance, or effect, as a share. It compares
two models whose scales differ; it has no interval and is a description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from probes.directions import Floats
from probes.evaluation import Interval, auroc, auroc_value, from_chance, student_interval
from probes.statistics.nulls import rank_among
from probes.steer.coherence import MARGIN_NATS
from probes.studies.transfer.families.plan import AIMS, ANCHORS, Aim, FamilyPlan
from probes.studies.transfer.families.reading import shows
from probes.studies.transfer.families.run import FamilyMap, MappedFigures, MeasuredFamilies, OwnFigures
from probes.studies.transfer.families.steer import Steered
from probes.studies.transfer.families.verdict import detection_verdict, steering_verdict

Plain = dict[str, Any]


def figures_of(measured: MeasuredFamilies) -> Plain:
    """Everything as plain data."""
    texts = measured.texts
    own = {key: _own(*key, found, measured.plan) for key, found in measured.own.items()}
    pairs = [
        _pair(key, one, measured.own[key[1], key[2]], own[key[1], key[2]], measured.plan)
        for key, found in measured.mapped.items()
        for one in found
    ]
    return {
        "families": [
            {
                "name": r.family.name,
                "template": r.family.template,
                "identity": r.identity,
                "sites": [str(site) for site in r.sites],
                "width": int(r.held["anchors", r.sites[0]].shape[1]),
            }
            for r in measured.readings
        ],
        "anchors": {
            "token": "the last prompt token, after which the model's own template has the reply start",
            "neutral": len(texts.anchors),
            "contrast": len(texts.anchors) + sum(2 * len(b.fit.shows) for b in texts.behaviours),
        },
        "texts": {
            "steered_requests": len(texts.test),
            "everyday": len(texts.everyday),
            "behaviours": {
                b.name: {
                    "read_from": b.read_from,
                    **{split: len(getattr(b, split).shows) for split in ("fit", "select", "test")},
                }
                for b in texts.behaviours
            },
        },
        "own": list(own.values()),
        "pairs": pairs,
        "by_depth": [
            {
                "donor": one.donor,
                "receiver": one.receiver,
                "behaviour": one.behaviour,
                "anchors": one.anchors,
                "from": str(one.sites[0]),
                "to": str(one.sites[1]),
                "r2": one.r2,
                "own": asdict(_auroc(one.own)),
                "mapped": asdict(_auroc(one.mapped)),
            }
            for one in measured.by_depth
        ],
        "tiers": _tiers(list(own.values()), pairs),
        "two_ways": _two_ways(pairs),
        "warnings": measured.warnings,
    }


def _own(receiver: str, behaviour: str, found: OwnFigures, plan: FamilyPlan) -> Plain:
    detection = _detection(found.scores, {"random": found.random_scores})
    detection["verdict"] = detection_verdict(detection, own=None)
    aims = {}
    for aim in AIMS:
        effect = _effect(found.steered[aim], found.plain, aim, {"random": found.random}, plan)
        aims[aim] = effect | {"verdict": steering_verdict(effect, own=None)}
    return {
        "receiver": receiver,
        "behaviour": behaviour,
        "read_at": str(found.read_at),
        "select_auroc": found.select_auroc,
        "detection": detection,
        "steering": {
            "site": str(found.place.direction.site),
            "alpha": found.place.alpha,
            "places_tried": found.place.tried,
            "coherent_on_select": found.place.coherent,
            "plain_refusing": _refusing(found.plain),
            "plain_margin": float(found.plain.margin.mean()),
            "aims": aims,
        },
    }


def _pair(key: tuple[str, str, str], found: MappedFigures, at: OwnFigures, own: Plain, plan: FamilyPlan) -> Plain:
    donor, receiver, behaviour = key
    detection = _detection(found.scores, {"random_source": found.random_scores, "random": at.random_scores})
    detection["kept"] = _share(detection["auroc"]["value"] - 0.5, own["detection"]["auroc"]["value"] - 0.5)
    detection["verdict"] = detection_verdict(detection, own=own["detection"])
    aims = {}
    for aim in AIMS:
        controls = {"random_source": found.random, "random": at.random}
        effect, whole = _effect(found.steered[aim], at.plain, aim, controls, plan), own["steering"]["aims"][aim]
        effect["kept"] = _share(effect["effect"]["value"], whole["effect"]["value"])
        aims[aim] = effect | {"verdict": steering_verdict(effect, own=whole)}
    return {
        "donor": donor,
        "receiver": receiver,
        "behaviour": behaviour,
        "anchors": found.anchors,
        "reading_map": _map(found.reading),
        "detection": detection,
        "steering_map": _map(found.steering),
        "steering": aims,
    }


def _map(found: FamilyMap) -> Plain:
    null, ridge = found.cosine_null, found.ridge
    return {
        "r2": ridge.r2,
        "r2_median_dimension": ridge.r2_median,
        "penalty": ridge.penalty,
        "penalty_at_edge": ridge.at_edge,
        "anchors_fitted": ridge.fitted,
        "anchors_held_out": ridge.held_out,
        "cosine": found.cosine,
        "cosine_null": {
            "draws": len(null),
            "low": float(np.quantile(null, 0.025)),
            "high": float(np.quantile(null, 0.975)),
            "p": rank_among(abs(found.cosine), np.abs(null)).p,
        },
    }


def _detection(scores: Floats, controls: Mapping[str, Sequence[Floats]]) -> Plain:
    labels, found = shows(scores), _auroc(scores)
    drawn = {kind: [auroc_value(s, labels) for s in draws] for kind, draws in controls.items()}
    return {
        "auroc": asdict(found),
        "controls": {
            kind: _controls([from_chance(v) for v in values], found.value) | {"mean_signed": float(np.mean(values))}
            for kind, values in drawn.items()
        },
    }


def _auroc(scores: Floats) -> Interval:
    """With pairs as clusters."""
    return auroc(scores, shows(scores), [*range(len(scores) // 2)] * 2)


def _effect(
    steered: Steered, plain: Steered, aim: Aim, controls: Mapping[str, Sequence[Steered]], plan: FamilyPlan
) -> Plain:
    sign = 1.0 if aim == "towards" else -1.0
    change = sign * (steered.margin - plain.margin)
    drawn = {kind: np.stack([sign * (d.margin - plain.margin) for d in draws]) for kind, draws in controls.items()}
    undefined = float(steered.undefined.mean())
    calm = steered.everyday is not None and steered.everyday <= MARGIN_NATS
    return {
        "effect": asdict(student_interval(change)),
        "refusing": _refusing(steered),
        "undefined": undefined,
        "everyday_rise": steered.everyday,
        "coherent": bool(calm and undefined <= plan.undefined),
        "controls": {
            kind: _controls(changes.mean(1).tolist(), float(change.mean()))
            | {"over": asdict(student_interval(change - changes.mean(0)))}
            for kind, changes in drawn.items()
        },
    }


def _controls(values: Sequence[float], ours: float) -> Plain:
    return {
        "draws": len(values),
        "mean": float(np.mean(values)),
        "most": max(values),
        "p": rank_among(ours, values).p,
    }


def _refusing(one: Steered) -> float:
    """Share of the test requests whose refusing opening is the likelier one, of those that are defined or not."""
    return float(((one.margin > 0) & (one.undefined == 0)).mean())


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _tiers(own: Sequence[Plain], pairs: Sequence[Plain]) -> Plain:
    """The two tiers of the source: own directions in their model, mapped ones in another; verdicts counted."""

    def count(found: Sequence[Plain]) -> Plain:
        verdicts: dict[str, int] = {}
        for one in found:
            verdicts[one["verdict"]] = verdicts.get(one["verdict"], 0) + 1
        return verdicts

    tiers: Plain = {}
    for behaviour in dict.fromkeys(o["behaviour"] for o in own):
        ours = [o for o in own if o["behaviour"] == behaviour]
        tiers[behaviour] = {
            "detection": {"own": count([o["detection"] for o in ours])},
            **{f"steering {aim}": {"own": count([o["steering"]["aims"][aim] for o in ours])} for aim in AIMS},
        }
        for kind in ANCHORS:
            theirs = [p for p in pairs if p["behaviour"] == behaviour and p["anchors"] == kind]
            tiers[behaviour]["detection"][f"mapped, {kind} anchors"] = count([p["detection"] for p in theirs])
            for aim in AIMS:
                tiers[behaviour][f"steering {aim}"][f"mapped, {kind} anchors"] = count(
                    [p["steering"][aim] for p in theirs]
                )
    return tiers


def _two_ways(pairs: Sequence[Plain]) -> list[Plain]:
    """Both ways of each pair of families beside each other, by what is kept of the receiver's own figure."""
    at = {(p["donor"], p["receiver"], p["behaviour"], p["anchors"]): p for p in pairs}
    rows = []
    for (donor, receiver, behaviour, kind), there in at.items():
        back = at.get((receiver, donor, behaviour, kind))
        if back is None or donor > receiver:
            continue
        rows.append(
            {
                "pair": [donor, receiver],
                "behaviour": behaviour,
                "anchors": kind,
                "detection": [there["detection"]["kept"], back["detection"]["kept"]],
                **{f"steering {aim}": [there["steering"][aim]["kept"], back["steering"][aim]["kept"]] for aim in AIMS},
            }
        )
    return rows
