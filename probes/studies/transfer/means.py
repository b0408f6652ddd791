"""Means of a transfer study over pairs of models, with bootstrap intervals.

Pairs share models, so they are not independent: intervals of means over pairs are a bootstrap over models, those of a
difference in one pair a bootstrap over questions. All are 95 %.
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

from probes.evaluation import Interval
from probes.steer.steering import Mode

_RESAMPLES = 2000
NULLS = ("random_source", "shuffled", "receiver_random")


def difference(a: NDArray[np.bool_], others: Sequence[NDArray[np.bool_]], seed: int = 0) -> Interval:
    """Mean of `a` minus the mean of `others` on the same questions, bootstrap over questions and over `others`."""
    rng = np.random.default_rng(seed)
    ours, theirs = a.astype(np.float64), np.stack(others).astype(np.float64)
    weights = rng.multinomial(len(ours), np.full(len(ours), 1 / len(ours)), _RESAMPLES) / len(ours)
    chosen = rng.multinomial(len(theirs), np.full(len(theirs), 1 / len(theirs)), _RESAMPLES) / len(theirs)
    draws = weights @ ours - ((weights @ theirs.T) * chosen).sum(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(ours.mean() - theirs.mean()), float(low), float(high), len(ours))


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
