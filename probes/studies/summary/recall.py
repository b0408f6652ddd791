"""The planted-truth column: which share of heads that were trained to carry a behaviour a method ranks first.

Contract: figures come from results of the study `planted-heads`, of real models with planted heads; where it was not
run, or did not try a method, that is said. Shares are means over seeds, with the worst seed beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probes.studies.framework.result import StudyResult
from probes.studies.planted_heads.methods import NAMES, PAPERS, YARDSTICK
from probes.studies.summary.results import Figures, whole

STUDY = "planted-heads"


def planted_recall(results: Sequence[StudyResult], methods: Sequence[str]) -> tuple[str, ...]:
    """A line for each behaviour and method; none where the claim rests on no search for heads."""
    lines = [line for r in results if r.study == STUDY for line in whole(r, lambda f: _lines(f, methods))]
    return tuple(lines) or (("not run",) if methods else ())


def best_methods(results: Sequence[StudyResult]) -> list[str]:
    """For each behaviour, how many planted heads the yardstick has in its first 3, and the best of the papers' methods.

    In words; none where no head was planted.
    """
    return [words for r in results if r.study == STUDY for words in whole(r, lambda f: list(_best(f)))]


def _best(result: Figures) -> Iterator[str]:
    for behaviour, measured in result["recall"].items():
        planted = sum(len(trial["heads"]) for trial in result["trials"] if trial["behaviour"] == behaviour)

        def first_3(method: str, of: Figures = measured, all_of: int = planted) -> int:
            return round(float(of[method]["top_3"]["mean"]) * all_of)

        said = [f"{NAMES[YARDSTICK]} has {first_3(YARDSTICK)} among its first 3"] if YARDSTICK in measured else []
        papers = [method for method in PAPERS if method in measured]
        if papers:
            best = max(papers, key=lambda method: float(measured[method]["top_3"]["mean"]))
            said.append(f"the papers' methods at best {first_3(best)} ({NAMES[best]})")
        yield f"of {planted} heads planted in a real model for {behaviour}, {', '.join(said)}"


def _lines(result: Figures, methods: Sequence[str]) -> list[str]:
    return [
        f"{NAMES[name]}, {behaviour}: {_share(measured[name]['top_3'])} in the first 3, "
        f"{_share(measured[name]['top_10'])} in the first 10"
        for behaviour, measured in result["recall"].items()
        for name in methods
        if name in measured
    ]


def _share(figure: Figures) -> str:
    return f"{figure['mean']:.2f} (worst seed {figure['lowest']:.2f})"
