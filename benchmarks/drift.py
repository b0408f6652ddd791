"""Tail drift simulated: false alarms a year of benign traffic, and how late a drift is told.

How to run: `python -m benchmarks.drift [--out docs/bench-drift.json] [--runs 200]`; ten minutes on one core. `--quick`
is a smoke test of a few weeks.

Contract: the statistic is `alerts.rules.exceedance`, as the rule `tail_drift` uses it. Each run draws a calibration
set of its own (so its quantiles are wrong by chance), then a year of traffic, hour by hour: numbers of messages are
Poisson around a day's rhythm. Nothing is assumed about scores but that the calibration and the traffic have the same
distribution; for drifts it is normal. The kinds of benign traffic:

- `independent`: each message for itself
- `conversations`: 1 to 32 messages that are all above a quantile or all not (mean 4, design effect 12), of which long
  ones go on in the next hour
- `rhythm`: conversations, and shares that go up and down by 30 % over the day
- `copies`: conversations, and once a week an hour in which somebody sends one message again and again, a fifth more
  traffic
- `heavy`: conversations, and shares a quarter larger than the calibration promises, all year: what still counts as none

An alarm begins when the value exceeds the rule's limit and ends at a tenth of it. The interval is of a Poisson count.
A year has one calibration here: alarms that only its error causes are part of the count. Delays: hours from the change
to the first hour with an alarm, in conversations; runs that had one already are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2, norm

from alerts.rules.exceedance import QUANTILES, TOLERANCE, Array, Hours, Level, evidence, years

YEAR = 8766
RATES = (100, 10_000, 1_000_000)
KINDS = ("independent", "conversations", "rhythm", "copies", "heavy")
CALIBRATIONS = (320, 2000, 10_000)
# As the rule has it, for one probe.
WEIGHT_ALL, WEIGHT_TENANT = 0.5, 0.5 / 20
SIZES = np.array([1, 2, 4, 8, 16, 32])
TALKS = np.array([0.40, 0.25, 0.15, 0.12, 0.06, 0.02])
LEVELS = tuple(QUANTILES)
TAILS = np.array([1 - q for q in QUANTILES.values()])
# Standard deviations that the mean moves; how much further the highest tenth of the scores goes.
SHIFT, STRETCH = 0.5, 1.5
CHANGES = ("fourfold flagged share", "shifted tail", "shifted mean", "no score high any more")
BEFORE, AFTER = 24 * 10, 24 * 14


def calibrations(rng: np.random.Generator, runs: int, n: int) -> Array:
    """The calibration's quantiles of so many runs, as normal scores; one column a level."""
    return np.array([np.quantile(rng.standard_normal(n), list(QUANTILES.values())) for _ in range(runs)])


def shares_after(change: str, at: Array) -> Array:
    """The share of scores above these once something has changed."""
    if change == "fourfold flagged share":
        # Three of a hundred messages are misaligned, well above: the benign ones make the other 1 % flagged.
        return np.asarray(0.03 + 0.97 * norm.sf(at))
    if change == "shifted tail":
        begin = norm.isf(0.1)
        return np.asarray(np.where(at > begin, norm.sf(begin + (at - begin) / STRETCH), norm.sf(at)))
    return np.asarray(norm.sf(at - SHIFT) if change == "shifted mean" else norm.sf(at + 1))


def traffic(rng: np.random.Generator, kind: str, per_day: float, shares: Array, tenant: float = 1.0) -> Hours:
    """Counts by hour; `shares` by run, hour and level."""
    runs, hours, _ = shares.shape
    clock = 2 * np.pi * np.arange(hours) / 24
    rate = per_day * tenant / 24 * (1 + 0.8 * np.sin(clock)) * np.ones((runs, 1))
    if kind == "rhythm":
        # The quiet hours are those with the larger share.
        shares = shares * (1 - 0.3 * np.sin(clock))[None, :, None]
    if kind == "heavy":
        shares = shares * TOLERANCE
    shares = np.minimum(shares, 1)
    sizes, weights = (SIZES[:1], np.ones(1)) if kind == "independent" else (SIZES, TALKS)
    n, above = np.zeros((runs, hours)), np.zeros((len(LEVELS), runs, hours))
    for size, weight in zip(sizes, weights, strict=True):
        talks = rng.poisson(rate * weight / (sizes @ weights))
        counted = [talks, *_nested(rng, talks, shares)]
        for total, count in zip((n, *above), counted, strict=True):
            total += _over_two_hours(count * size) if size >= 8 else count * size
    if kind == "copies":
        weekly = rng.random((runs, hours)) < 1 / 168
        copies = weekly * rng.poisson(0.2 * rate)
        n += copies
        for total, above_too in zip(above, _nested(rng, weekly.astype(np.int64), shares), strict=True):
            total += copies * above_too
    return Hours(n, dict(zip(LEVELS, above, strict=True)))


def _nested(rng: np.random.Generator, number: Any, shares: Array) -> list[Any]:
    """How many are above each level; what is above a higher one is above a lower one."""
    counts, share_before = [], np.ones(shares.shape[:2])
    for level in range(len(LEVELS)):
        share = shares[..., level]
        number = rng.binomial(number, np.clip(share / np.maximum(share_before, 1e-300), 0, 1))
        counts.append(number)
        share_before = share
    return counts


def _over_two_hours(messages: Array) -> Array:
    """Half of them in the next hour."""
    later = messages // 2
    now = messages - later
    now[..., 1:] += later[..., :-1]
    return np.asarray(now)


def tail_of(n: int) -> tuple[Level, ...]:
    return tuple(
        Level(name, round(1 - q, 6), n, below=name == "over95") for name, q in QUANTILES.items() if n * (1 - q) > 0.999
    )


def alarms(value: Array) -> tuple[Array, Array]:
    """The number of alarms of each run, and the hours with one."""
    live = np.zeros(len(value), dtype=bool)
    begun, hours = np.zeros(len(value)), np.zeros(len(value))
    for now in value.T:
        begins = ~live & (now > 1)
        live = begins | (live & (now > 0.1))
        begun += begins
        hours += live
    return begun, hours


def false_alarms(rng: np.random.Generator, kind: str, per_day: int, n: int, runs: int, hours: int) -> dict[str, Any]:
    """Alarms a year of benign traffic."""
    shares = np.repeat(norm.sf(calibrations(rng, runs, n))[:, None, :], hours, axis=1)
    if kind == "heavy":
        # What a calibration promises, known exactly: the largest share that is no drift.
        shares[:] = TAILS
    value = years(evidence(tail_of(n), traffic(rng, kind, per_day, shares)), WEIGHT_ALL)
    return _figures(*alarms(value), hours) | {"kind": kind, "per_day": per_day, "calibration": n}


def of_tenants(rng: np.random.Generator, kind: str, per_day: int, n: int, runs: int, hours: int) -> dict[str, Any]:
    """All alarms of one probe: of the whole traffic and of 20 tenants of it, the largest with a quarter."""
    sizes = 1 / np.arange(1, 21)
    shares = np.repeat(norm.sf(calibrations(rng, runs, n))[:, None, :], hours, axis=1)
    parts = [traffic(rng, kind, per_day, shares, size) for size in sizes / sizes.sum()]
    whole = Hours(
        np.sum([part.n for part in parts], axis=0),
        {name: np.sum([part.above[name] for part in parts], axis=0) for name in LEVELS},
    )
    tested = [(whole, WEIGHT_ALL), *((part, WEIGHT_TENANT) for part in parts)]
    begun, live = np.sum([alarms(years(evidence(tail_of(n), h), weight)) for h, weight in tested], axis=0)
    return _figures(begun, live, hours) | {"kind": f"{kind}, and 20 tenants", "per_day": per_day, "calibration": n}


def _figures(begun: Array, live: Array, hours: int) -> dict[str, Any]:
    count, whole = int(begun.sum()), len(begun) * hours / YEAR
    low = chi2.ppf(0.025, 2 * count) / 2 / whole if count else 0.0
    return {
        "alarms": count,
        "years": round(whole, 1),
        "a_year": count / whole,
        "low": float(low),
        "high": float(chi2.ppf(0.975, 2 * count + 2) / 2 / whole),
        "runs_with_any": float((begun > 0).mean()),
        "time_in_alarm": float(live.sum() / len(live) / hours),
    }


def delay(rng: np.random.Generator, change: str, per_day: int, n: int, runs: int, part: float = 1.0) -> dict[str, Any]:
    """Hours until an alarm; None where half of the runs had none within two weeks."""
    at = calibrations(rng, runs, n)
    shares = np.repeat(norm.sf(at)[:, None, :], BEFORE + AFTER, axis=1)
    shares[:, BEFORE:, :] = shares_after(change, at)[:, None, :]
    value = years(evidence(tail_of(n), traffic(rng, "conversations", per_day * part, shares)), WEIGHT_ALL)
    good = (value[:, :BEFORE] <= 1).all(axis=1)
    told = value[good, BEFORE:] > 1
    hours = np.where(told.any(axis=1), told.argmax(axis=1) + 1.0, np.inf)
    low, median, high = (float(x) if np.isfinite(x) else None for x in _quantiles(hours))
    return {
        "change": change,
        "per_day": per_day,
        "calibration": n,
        "runs": int(good.sum()),
        "median_hours": median,
        "from_hours": low,
        "to_hours": high,
        "told_in_two_weeks": float(told.any(axis=1).mean()),
    }


def _quantiles(hours: Array) -> Array:
    ordered = np.sort(hours)
    return np.asarray(ordered[[int(q * (len(ordered) - 1)) for q in (0.05, 0.5, 0.95)]])


def markdown(report: Mapping[str, Any]) -> str:
    """The report as two Markdown tables."""
    lines = ["| benign traffic | a day | calibration | alarms a year | 95 % | calibrations with any |"]
    lines.append("|---|---:|---:|---:|---|---:|")
    for row in report["false_alarms"]:
        lines.append(
            f"| {row['kind']} | {row['per_day']:,} | {row['calibration']:,} | {row['a_year']:.3f} | "
            f"{row['low']:.3f} to {row['high']:.3f} | {row['runs_with_any']:.1%} |"
        )
    lines += ["", "| change | a day | calibration | hours (5 % to 95 %) | told in two weeks |"]
    lines.append("|---|---:|---:|---|---:|")
    for row in report["delays"]:
        median, low, high = (
            "-" if row[name] is None else f"{row[name]:.0f}" for name in ("median_hours", "from_hours", "to_hours")
        )
        lines.append(
            f"| {row['change']} | {row['per_day']:,} | {row['calibration']:,} | {median} ({low} to {high}) | "
            f"{row['told_in_two_weeks']:.0%} |"
        )
    return "\n".join([*lines, "", f"Command: {report['command']}."])


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description="Tail drift: false alarms a year, and delays.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(given)
    rng = np.random.default_rng(options.seed)
    runs, hours = (4, 24 * 30) if options.quick else (options.runs, YEAR)
    report = {
        "false_alarms": [
            *(false_alarms(rng, k, r, n, runs, hours) for k in KINDS for r in RATES for n in CALIBRATIONS),
            *(
                of_tenants(rng, kind, r, 2000, max(runs // 4, 2), hours)
                for kind in ("conversations", "rhythm")
                for r in RATES
            ),
        ],
        "delays": [delay(rng, c, r, n, runs) for c in CHANGES for r in RATES for n in CALIBRATIONS],
        "limit": "once a year, over all quantiles, tenants and probes",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "numpy": np.__version__},
        "command": " ".join(["python -m benchmarks.drift", *given]),
        "quick": options.quick,
    }
    print(markdown(report))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
