"""Means of a transfer study over pairs of models, with intervals.

Pairs share models, so they are not independent: intervals of means over pairs are the jackknife's over models, those of
a difference in one pair Student's t over questions, and over random draws where there are several. All are 95 %. A
bootstrap over five models covers 0.8 and not 0.95, as a model drawn twice has no pair with itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from probes.evaluation import BOTH_WAYS, Interval, jackknife_interval, paired_difference
from probes.steer.steering import Mode

# Fewer models give no interval over models.
FEWEST_MODELS = 3
NULLS = ("random_source", "shuffled", "receiver_random")


def difference(a: NDArray[np.bool_], others: Sequence[NDArray[np.bool_]]) -> Interval:
    """Share of `a` less the mean share of `others` on the same questions.

    With one other it is `paired_difference`. Several are random draws, and the interval then holds for the mean of all
    that could be drawn: its variance is that of questions and that of draws. Of three draws that differ much it covers
    0.90 only, of five 0.93 at least.
    """
    if len(others) == 1:
        return paired_difference(a, others[0])
    theirs = np.stack(others).astype(np.float64)
    rows = a - theirs.mean(0)
    added = np.append(rows, BOTH_WAYS)
    found = jackknife_interval(float(added.mean()), _left_out(added), _left_out(theirs.mean(1)))
    return Interval(float(rows.mean()), max(-1.0, found.low), min(1.0, found.high), len(rows))


def _left_out(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of all values but one."""
    means: NDArray[np.float64] = (values.sum() - values) / (len(values) - 1)
    return means


def over_models(pairs: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> Interval:
    """Mean of a figure over pairs, with the jackknife's interval over models: all pairs of one are left out at a time.

    A model that is in every pair (the donor of all) is given; the interval is over the others. Figures lie within -1..1
    (R2 may be lower), and so does the interval. With fewer than three models to leave out it is all of that: two models
    say nothing of a third.
    """
    ends = [{p["donor"], p["receiver"]} for p in pairs]
    values = np.array([value(p) for p in pairs])
    kept = [np.array([name not in pair for pair in ends]) for name in sorted(set[str]().union(*ends))]
    means = [float(values[rest].mean()) for rest in kept if rest.any()]
    few = len(means) < FEWEST_MODELS
    found = jackknife_interval(float(values.mean()), np.array([] if few else means), n=len(pairs))
    return Interval(found.value, max(found.low, min(-1.0, float(values.min()))), min(found.high, 1.0), found.n)


def overall_means(pairs: Sequence[dict[str, Any]], groups: dict[str, str], mode: Mode) -> dict[str, Any]:
    across = [p for p in pairs if groups[p["donor"]] != groups[p["receiver"]]]
    within = [p for p in pairs if groups[p["donor"]] == groups[p["receiver"]]]
    return {name: means(chosen, mode) for name, chosen in (("across", across), ("within", within)) if chosen}


def means(pairs: Sequence[dict[str, Any]], mode: Mode) -> dict[str, Any]:
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


def group_means(pairs: Sequence[dict[str, Any]], groups: dict[str, str], mode: Mode) -> list[dict[str, Any]]:
    """Means over seeds for every ordered pair of groups; within a group, over different members."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for pair in pairs:
        cells.setdefault((groups[pair["donor"]], groups[pair["receiver"]]), []).append(pair)
    return [
        {"donor": donor, "receiver": receiver, **means(members, mode)}
        for (donor, receiver), members in sorted(cells.items())
    ]


def asymmetry(pairs: Sequence[dict[str, Any]], groups: dict[str, str], mode: Mode) -> dict[str, Any]:
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
