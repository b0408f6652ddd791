"""Rules of claims between families: what counts, what cannot be told, and who gives."""

from __future__ import annotations

from typing import Any

import pytest

from probes.studies.framework.verdict import Support, Verdict
from probes.studies.summary.family_rules import (
    RULES,
    mapped_are_not_specific,
    mapped_steer,
    one_way_keeps_more,
    own_is_specific,
)

SPECIFIC, NOT, NO, NOISE, UNTESTABLE = (
    Verdict.WORKS_SPECIFIC,
    Verdict.WORKS_NOT_SPECIFIC,
    Verdict.NO_EFFECT,
    Verdict.NOISE,
    Verdict.NOT_TESTABLE,
)


def aims(*verdicts: Verdict, low: float = 0.1) -> dict[str, Any]:
    effect = {"value": 0.4, "low": low, "high": 0.8 - low, "n": 24}
    return {aim: {"verdict": str(v), "effect": effect} for aim, v in zip(("towards", "away"), verdicts, strict=True)}


def result(own: list[tuple[Verdict, Verdict]], mapped: list[tuple[Verdict, Verdict]]) -> dict[str, Any]:
    controls = {"controls": {"random": {"draws": 20}, "random_source": {"draws": 20}}}
    return {
        "own": [{"steering": {"aims": aims(*v)}} for v in own],
        "pairs": [{"steering": aims(*v), "detection": controls} for v in mapped],
    }


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ((SPECIFIC, SPECIFIC), Support.YES),
        ((SPECIFIC, NO), Support.YES),
        ((SPECIFIC, NOT), Support.UNSURE),
        ((NOT, NOISE), Support.NO),
        ((NO, NOISE), Support.UNTESTABLE),
    ],
)
def test_tier_one_is_of_own_directions_that_steer(own: tuple[Verdict, Verdict], said: Support) -> None:
    assert own_is_specific(result([own], [])).support is said


@pytest.mark.parametrize(
    ("mapped", "acts", "not_specific"),
    [
        ((NOT, NOT), Support.YES, Support.YES),
        ((SPECIFIC, SPECIFIC), Support.YES, Support.NO),
        ((SPECIFIC, NOT), Support.YES, Support.UNSURE),
        ((NOT, NO), Support.UNSURE, Support.YES),
        ((NOT, UNTESTABLE), Support.YES, Support.YES),
        ((NO, NOISE), Support.NO, Support.UNTESTABLE),
        ((UNTESTABLE, UNTESTABLE), Support.UNTESTABLE, Support.UNTESTABLE),
    ],
)
def test_tier_two_counts_mapped_directions_where_the_own_one_steers(
    mapped: tuple[Verdict, Verdict], acts: Support, not_specific: Support
) -> None:
    found = result([(SPECIFIC, SPECIFIC)], [mapped])
    assert mapped_steer(found).support is acts
    assert mapped_are_not_specific(found).support is not_specific


def two_ways(*kept: tuple[float | None, float | None]) -> dict[str, Any]:
    """Three measures a behaviour, one behaviour after the other."""
    names = ("detection", "steering towards", "steering away")
    rows = [list(map(list, kept[i : i + 3])) for i in range(0, len(kept), 3)]
    return {"two_ways": [{"pair": ["a", "b"], **dict(zip(names, row, strict=True))} for row in rows]}


def test_one_gives_only_where_it_gives_more_in_every_measure() -> None:
    found = one_way_keeps_more(two_ways((0.9, 0.3), (0.8, 0.1), (0.4, 0.2), (0.6, 0.1), (0.5, 0.4), (None, 0.2)))
    assert found.support is Support.YES
    assert found.words.startswith("a gives more in 5 of 5 measures")
    # One or two measures have the same leader whatever is true, and a tie has none.
    assert one_way_keeps_more(two_ways((0.9, 0.3), (0.8, 0.1), (None, 0.2))).support is Support.UNSURE
    assert one_way_keeps_more(two_ways((0.5, 0.5), (0.1, 0.1), (0.2, 0.2))).support is Support.UNTESTABLE
    assert one_way_keeps_more(two_ways((0.9, 0.3), (0.1, 0.8), (0.5, 0.2))).support is Support.UNSURE
    assert one_way_keeps_more(two_ways((None, 0.3), (0.8, None), (None, None))).support is Support.UNTESTABLE


def test_power_is_that_of_the_least_certain_own_effect() -> None:
    found = result([(SPECIFIC, SPECIFIC)], [(NOT, NOT)])
    sharp = RULES["families_mapped"].power(found)
    found["own"].append({"steering": {"aims": aims(NO, NO, low=-1.0)}})
    blunt = RULES["families_mapped"].power(found)
    assert [float(text.split()[1]) for text in (sharp, blunt)] == sorted(float(t.split()[1]) for t in (sharp, blunt))
    assert sharp != blunt
    assert RULES["families_own"].power(found) == "p from 0.048 (20 draws)"
