"""The first screen of docs/study.md: five sentences for a security engineer, made of outcomes and of verdicts alone.

Contract: `first_screen(outcomes, results)` says for each of the papers' tools what to trust it for here; `outcomes` are
by the id of a claim. What was not run is said to be so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probes.studies.framework.result import StudyResult
from probes.studies.framework.verdict import ClaimOutcome
from probes.studies.summary.recall import best_methods

_HOW = {
    ClaimOutcome.REPRODUCED: "yes",
    ClaimOutcome.NOT_REPRODUCED: "no",
    ClaimOutcome.MIXED: "mixed",
    ClaimOutcome.NOT_TESTABLE: "not testable here",
    ClaimOutcome.NOT_MEASURED: "not run",
}


def first_screen(outcomes: Mapping[str, ClaimOutcome], results: Sequence[StudyResult]) -> list[str]:
    """Lines of Markdown: a heading and five numbered sentences."""

    def how(claim: str) -> str:
        return f"**{_HOW[outcomes[claim]]}**"

    planted = best_methods(results)
    found = f"of heads planted in a real model, {'; '.join(planted)}" if planted else "no head was planted to check it"
    sentences = [
        f"To *detect*, read activations: {_verdict(results, 'detectors')}.",
        f"To *mitigate inside one model*: subtracting its own direction lowers the behaviour "
        f"({how('within-steering')}), does more than random directions ({how('within-specific')}) and acts on what "
        f"was taught rather than on its form ({how('content')}).",
        f"To *carry a direction to another model* through a linear map: it lowers the behaviour there "
        f"({how('transfer-lowers')}), and the model's own direction is the better tool ({how('own-beats-mapped')}); "
        f"between real families: {_verdict(results, 'transfer-families')}.",
        f"To *steer a few attention heads* (HSI): held-out choices move by far ({how('wanted-rise')}), open answers "
        f"follow ({how('carries-over')}), and it is these heads and directions ({how('these-heads')}).",
        f"To *find the heads that carry safety* (Ships, Sahara): ablating them makes the model answer what it refused "
        f"({how('top-head')}), and no other heads do ({how('safety-specific')}); {found}.",
    ]
    return ["## In five sentences", "", *(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1))]


def _verdict(results: Sequence[StudyResult], study: str) -> str:
    """The verdicts of a study's results, or that there are none."""
    said = [str(r.measured["verdict"]["sentence"]).rstrip(".") for r in results if r.study == study]
    return "; ".join(said) or "not run"
