"""Summary of a transfer study: figures, verdicts, tables and pictures from what was measured.

`gain` is the share of good answers (no behaviour, and coherent) under a direction minus that without one; `drop` is
the share of bad answers taken away, which noise takes away as well. Intervals are 95 %: exact binomial for rates,
bootstrap over questions for differences in one pair, bootstrap over models for means over pairs (pairs share models,
so they are not independent).

A pair's verdict: the mapped direction *works* when its gain is at least 0.15 and above 0; it is *specific* when it is
also better than each kind of control (interval above 0) and than every single control. Noise is a drop without a gain.
Detection has a verdict of its own, from AUROC on the test questions (`probes.studies.transfer.detection`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from probes.evaluation import Interval, from_chance, rate
from probes.steer.contrast import ContrastOutcome
from probes.steer.steering import Mode
from probes.studies.plots import plot_matrices, plot_two_ways
from probes.studies.tables import plain
from probes.studies.transfer.detection import Detection
from probes.studies.transfer.plan import SPECIFIC, Measured, Pair, Receiver
from probes.studies.transfer.tables import markdown

WORKS = 0.15
# Mean AUROC from which directions are said to tell conditions apart.
DETECTS = 0.75
_RESAMPLES = 2000
# Fewer random directions are no control (`docs/science.md` D.6).
_DRAWS = 5
NULLS = ("random_source", "shuffled", "receiver_random")
VERDICTS = (SPECIFIC, "works, not specific", "noise", "no effect", "undecided")


def write(result: dict[str, Any], folder: Path) -> None:
    """Write RESULT.json, TRANSFER.md and the two PNGs of a result."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULT.json").write_text(json.dumps(plain(result, partial(round, ndigits=4)), indent=1) + "\n")
    (folder / "TRANSFER.md").write_text(markdown(result))
    names = [s["name"] for s in result["subjects"]]
    mode = result["settings"]["modes"][0]
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
    return {
        "what": "ridge transfer of misalignment directions between models",
        "notes": sorted({r.subject.note for r in measured.readings if r.subject.note}),
        "settings": asdict(settings),
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
        "overall": {mode: _overall(pairs, groups, mode) for mode in settings.modes},
        "groups": {mode: _cells(pairs, groups, mode) for mode in settings.modes},
        "asymmetry": {mode: _asymmetry(pairs, groups, mode) for mode in settings.modes},
        "detection": detection,
        "verdict": {
            **{mode: _verdict(pairs, groups, mode) + _few(settings.draws) for mode in settings.modes},
            "detection": _detection_verdict(detection) + _few(settings.draws),
        },
    }


def difference(a: NDArray[np.bool_], others: Sequence[NDArray[np.bool_]], seed: int = 0) -> Interval:
    """Mean of `a` minus the mean of `others` on the same questions, bootstrap over questions and over `others`."""
    rng = np.random.default_rng(seed)
    ours, theirs = a.astype(np.float64), np.stack(others).astype(np.float64)
    weights = rng.multinomial(len(ours), np.full(len(ours), 1 / len(ours)), _RESAMPLES) / len(ours)
    chosen = rng.multinomial(len(theirs), np.full(len(theirs), 1 / len(theirs)), _RESAMPLES) / len(theirs)
    draws = weights @ ours - ((weights @ theirs.T) * chosen).sum(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(ours.mean() - theirs.mean()), float(low), float(high), len(ours))


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
            "p": float((1 + (np.abs(null) >= abs(pair.cosine)).sum()) / (1 + len(null))),
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
        "verdict": _pair_verdict(own, gain, drop, list(over.values()), float(mapped.good.mean()) > best),
    }


def _pair_verdict(own: float, gain: Interval, drop: Interval, over: Sequence[Interval], beats_all: bool) -> str:
    if own < WORKS:
        return "undecided"
    if gain.value >= WORKS and gain.low > 0:
        specific = beats_all and all(o.low > 0 for o in over)
        return SPECIFIC if specific else "works, not specific"
    return "noise" if drop.value >= WORKS and drop.low > 0 else "no effect"


def _receiver(receiver: Receiver, modes: Sequence[Mode]) -> dict[str, Any]:
    return {
        "aligned": _condition(receiver.aligned),
        "untouched": _condition(receiver.untouched),
        "modes": {
            mode: {
                "own": _condition(receiver.native[mode]),
                "random": _conditions(receiver.random[mode]),
                "orthogonal": _condition(receiver.orthogonal[mode]),
                "another_block": _condition(receiver.elsewhere[mode]) if receiver.elsewhere else None,
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


def over_models(pairs: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float], seed: int = 0) -> Interval:
    """Mean of a figure over pairs, with a bootstrap over models: a model drawn twice counts in its pairs twice."""
    names = sorted({p[end] for p in pairs for end in ("donor", "receiver")})
    at = {name: i for i, name in enumerate(names)}
    values = np.array([value(p) for p in pairs])
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), _RESAMPLES)
    weights = counts[:, [at[p["donor"]] for p in pairs]] * counts[:, [at[p["receiver"]] for p in pairs]]
    drawn = weights.sum(1) > 0
    draws = (weights[drawn] @ values) / weights[drawn].sum(1)
    low, high = np.quantile(draws, [0.025, 0.975]) if drawn.any() else (values.mean(), values.mean())
    return Interval(float(values.mean()), float(low), float(high), len(pairs))


def _overall(pairs: Sequence[dict[str, Any]], groups: dict[str, str], mode: Mode) -> dict[str, Any]:
    across = [p for p in pairs if groups[p["donor"]] != groups[p["receiver"]]]
    within = [p for p in pairs if groups[p["donor"]] == groups[p["receiver"]]]
    return {name: _means(chosen, mode) for name, chosen in (("across", across), ("within", within)) if chosen}


def _means(pairs: Sequence[dict[str, Any]], mode: Mode) -> dict[str, Any]:
    figures: dict[str, Callable[[dict[str, Any]], float]] = {
        "r2": lambda p: p["r2"],
        "cosine": lambda p: p["cosine"],
        "own_gain": lambda p: p["modes"][mode]["own_gain"],
        "gain": lambda p: p["modes"][mode]["gain"]["value"],
        "drop": lambda p: p["modes"][mode]["drop"]["value"],
        "over_controls": lambda p: p["modes"][mode]["over_controls"]["value"],
    }
    for null in NULLS:
        figures[f"over_{null}"] = partial(_nested, mode=mode, path=("over", null, "value"))
        figures[f"drop_{null}"] = partial(_nested, mode=mode, path=("drop_controls", null))
    gains = [p["modes"][mode]["over_controls"]["value"] for p in pairs]
    return {
        "pairs": len(pairs),
        "verdicts": dict(Counter(p["modes"][mode]["verdict"] for p in pairs)),
        **{name: asdict(over_models(pairs, value)) for name, value in figures.items()},
        # Ranks over pairs that share models: a description, without a p-value.
        "rank_correlation_with_over_controls": {
            name: _spearman([p[name] for p in pairs], gains) for name in ("r2", "cosine")
        },
    }


def _nested(pair: dict[str, Any], mode: Mode, path: Sequence[str]) -> float:
    value = pair["modes"][mode]
    for name in path:
        value = value[name]
    return float(value)


def _spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    if len(a) < 4 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    return float(spearmanr(a, b).statistic)


def _cells(pairs: Sequence[dict[str, Any]], groups: dict[str, str], mode: Mode) -> list[dict[str, Any]]:
    """Means over seeds for every ordered pair of groups; within a group, over different members."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for pair in pairs:
        cells.setdefault((groups[pair["donor"]], groups[pair["receiver"]]), []).append(pair)
    return [
        {"donor": donor, "receiver": receiver, **_means(members, mode)}
        for (donor, receiver), members in sorted(cells.items())
    ]


def _asymmetry(pairs: Sequence[dict[str, Any]], groups: dict[str, str], mode: Mode) -> dict[str, Any]:
    """Who gives and who takes, over pairs of different groups; and how unequal the two ways of a pair are."""
    across = [p for p in pairs if groups[p["donor"]] != groups[p["receiver"]]] or list(pairs)

    def gain(p: dict[str, Any]) -> float:
        return float(p["modes"][mode]["gain"]["value"])

    named = groups if any(groups[p["donor"]] != groups[p["receiver"]] for p in pairs) else {n: n for n in groups}
    by_group = {}
    for group in dict.fromkeys(named.values()):
        given = [p for p in across if named[p["donor"]] == group]
        taken = [p for p in across if named[p["receiver"]] == group]
        if given and taken:
            by_group[group] = {
                "as_donor": asdict(over_models(given, gain)),
                "as_receiver": asdict(over_models(taken, gain)),
                "over_controls_as_donor": asdict(
                    over_models(given, lambda p: p["modes"][mode]["over_controls"]["value"])
                ),
            }
    both = {(p["donor"], p["receiver"]): p for p in across}
    ways = [(gain(p), gain(both[r, d])) for (d, r), p in both.items() if d < r and (r, d) in both]
    noise = [_noise(p, mode) for p in across]
    return {
        "groups": by_group,
        "mean_difference_of_two_ways": float(np.mean([abs(a - b) for a, b in ways])) if ways else None,
        # What two equal gains would differ by, from the questions alone.
        "expected_from_sampling": float(np.mean(noise)) * 2 / float(np.sqrt(np.pi)),
    }


def _noise(pair: dict[str, Any], mode: Mode) -> float:
    gain = pair["modes"][mode]["gain"]
    return float((gain["high"] - gain["low"]) / (2 * 1.96))


def _verdict(pairs: Sequence[dict[str, Any]], groups: dict[str, str], mode: Mode) -> str:
    """In words, over pairs of different groups (over all pairs when there is one group)."""
    across = [p for p in pairs if groups[p["donor"]] != groups[p["receiver"]]] or list(pairs)
    means = _means(across, mode)
    counts = ", ".join(f"{v}: {means['verdicts'].get(v, 0)}" for v in VERDICTS)
    gain, over = (Interval(**means[name]) for name in ("gain", "over_controls"))
    if means["own_gain"]["value"] < WORKS:
        words = "nothing can be said: the receivers' own directions do not work either"
    elif gain.value < WORKS or gain.low <= 0:
        drop = Interval(**means["drop"])
        words = "mapped directions do not transfer" + (
            ": bad answers go, good ones do not come back" if drop.low > 0 else ""
        )
    elif over.low <= 0:
        words = "mapped directions work, and no better than controls through the same map: not specific"
    elif means["verdicts"].get(SPECIFIC, 0) * 2 >= len(across):
        words = "mapped directions work and are specific in most pairs"
    else:
        words = "mapped directions work better than controls on average, and are specific in a minority of pairs"
    return f"{words} (gain {gain}, over controls {over}; {len(across)} pairs: {counts})"


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


def _detection_verdict(figures: dict[str, Any]) -> str:
    mapped, own, over = (Interval(**figures[name]) for name in ("mapped", "own", "over_controls"))
    if own.value < DETECTS:
        words = "nothing can be said: the receivers' own directions do not tell their conditions apart either"
    elif mapped.value < DETECTS:
        words = "mapped directions do not tell the receivers' conditions apart"
    elif over.low <= 0:
        words = "mapped directions tell the receivers' conditions apart, no better than controls: not specific"
    else:
        words = "mapped directions tell the receivers' conditions apart, better than controls do"
    return f"{words} (AUROC {mapped}, over controls {over}, receivers' own {own}; {figures['pairs']} pairs)"


def of_text(probes: Sequence[dict[str, Any]]) -> str:
    """A warning where the receivers' conversations, without any model, tell the conditions apart as well."""
    probed = [p for p in probes if "text_only" in p]
    alike = [p for p in probed if p["text_only"]["value"] >= p["auroc"]["value"]]
    if not alike:
        return ""
    return f"; warning: the text alone tells the conditions apart as well in {len(alike)} of {len(probed)} receivers"


def _few(draws: int) -> str:
    return "" if draws >= _DRAWS else f"; warning: random controls drawn {draws} times, fewer than {_DRAWS} say little"


def _matrix(
    result: dict[str, Any], names: Sequence[str], value: Callable[[dict[str, Any]], float]
) -> NDArray[np.float64]:
    matrix = np.full((len(names), len(names)), np.nan)
    for pair in result["pairs"]:
        matrix[names.index(pair["donor"]), names.index(pair["receiver"])] = value(pair)
    return matrix
