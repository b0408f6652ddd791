"""Claims of arXiv 2606.20225 between real families, a rule each: both tiers, and who gives.

What was measured is how likely a refusal becomes, not code spillover: the behaviour is one that both models have
without a fine-tune. Mapped directions count with either kind of anchors, and in either aim; where the receiver's own
does nothing they are not counted. Verdicts are the study's own (`probes.studies.transfer.families.verdict`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from probes.studies.framework.verdict import Support, Verdict
from probes.studies.summary import power
from probes.studies.summary.results import Figures, Finding, Rule, each
from probes.studies.transfer.families.verdict import SHIFTS, WORKS

# With fewer measures the same leader in all of them says little.
LEAST_MEASURES = 5


def own_is_specific(result: Figures) -> Finding:
    """Tier one: inside each model."""
    verdicts = [v for own in result["own"] for v in _steered(own["steering"]["aims"])]
    working = [v for v in verdicts if v in WORKS]
    words = f"own directions that steer: {len(working)} of {len(verdicts)}"
    return _all_or_none(working, Verdict.WORKS_SPECIFIC, f"{words}; {_specific(working)} better than every random one")


def mapped_steer(result: Figures) -> Finding:
    """Tier two, first half: a mapped direction acts."""
    verdicts = _mapped(result)
    working = sum(v in WORKS for v in verdicts)
    words = f"mapped directions that steer where the own one does: {working} of {len(verdicts)}"
    if not verdicts:
        return Finding(Support.UNTESTABLE, "no own direction steers")
    return Finding(Support.YES if working == len(verdicts) else Support.UNSURE if working else Support.NO, words)


def mapped_are_not_specific(result: Figures) -> Finding:
    """Tier two, second half: and random vectors do as much."""
    working = [v for v in _mapped(result) if v in WORKS]
    words = f"of {len(working)} mapped directions that steer, {_specific(working)} better than every random one"
    return _all_or_none(working, Verdict.WORKS_NOT_SPECIFIC, words)


def one_way_keeps_more(result: Figures) -> Finding:
    """In every measure the same of the two keeps more of what is the receiver's own."""
    leads: list[str] = []
    for row in result["two_ways"]:
        for measure in ("detection", "steering towards", "steering away"):
            there, back = row[measure]
            if there is not None and back is not None and there != back:
                leads.append(row["pair"][0] if there > back else row["pair"][1])
    counts = {name: leads.count(name) for name in sorted(set(leads))}
    words = ", ".join(f"{name} gives more in {n} of {len(leads)} measures" for name, n in counts.items())
    if not leads:
        return Finding(Support.UNTESTABLE, "no measure could be compared both ways")
    # One measure has one leader, whatever is true.
    enough = len(leads) >= LEAST_MEASURES
    return Finding(Support.YES if len(counts) == 1 and enough else Support.UNSURE, f"{words} (no test)")


def _steered(aims: dict[str, Any]) -> list[Verdict]:
    return [Verdict(found["verdict"]) for found in aims.values()]


def _mapped(result: Figures) -> list[Verdict]:
    """Of every pair, kind of anchors and aim where the receiver's own direction steers."""
    verdicts = (v for pair in result["pairs"] for v in _steered(pair["steering"]))
    return [v for v in verdicts if v is not Verdict.NOT_TESTABLE]


def _specific(verdicts: list[Verdict]) -> int:
    return verdicts.count(Verdict.WORKS_SPECIFIC)


def _all_or_none(working: list[Verdict], wanted: Verdict, words: str) -> Finding:
    if not working:
        return Finding(Support.UNTESTABLE, words)
    share = working.count(wanted)
    return Finding(Support.YES if share == len(working) else Support.UNSURE if share else Support.NO, words)


def _effects(result: Figures) -> Iterator[dict[str, Any]]:
    for own in result["own"]:
        for found in own["steering"]["aims"].values():
            yield found["effect"]


def _steering_power(result: Figures) -> str:
    """Of the least certain own effect."""
    widest = max(_effects(result), key=lambda effect: float(effect["high"] - effect["low"]))
    return power.smallest(widest, " nats a token")


def _draws_power(result: Figures) -> str:
    return power.draws(sorted({c["draws"] for p in result["pairs"] for c in p["detection"]["controls"].values()}))


RULES = {
    "families_own": Rule(
        "every own direction that makes refusing openings likelier or less likely (by at least "
        f"{SHIFTS:g} nats a token, text intact) does more than every kind of random direction of its size, p <= 0.05",
        each(own_is_specific),
        _draws_power,
    ),
    "families_mapped": Rule(
        f"every mapped direction moves them by at least {SHIFTS:g} nats a token, text intact, where the own one does",
        each(mapped_steer),
        _steering_power,
    ),
    "families_non_specific": Rule(
        "of the mapped directions that do, none does more than random donor directions through the map and random "
        "ones in the receiver, and some kind of them surely does as much",
        each(mapped_are_not_specific),
        _draws_power,
    ),
    "families_one_way": Rule(
        f"in every measure, {LEAST_MEASURES} at least, the same of the two models gives the other the larger share of "
        "its own figure; else mixed",
        each(one_way_keeps_more),
        lambda _: power.NO_TEST,
    ),
}
