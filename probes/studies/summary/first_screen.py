"""The first screen of docs/study.md: five sentences for a security engineer, made of outcomes and of verdicts alone.

Contract: `first_screen(outcomes, results)` says for each of the papers' tools what to trust it for here; `outcomes` are
by the id of a claim. What was not run is said to be so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probes.studies.detectors.report import SHIPPED
from probes.studies.framework.result import StudyResult
from probes.studies.framework.verdict import ClaimOutcome, Verdict
from probes.studies.safety_heads.trials import effect, scaled
from probes.studies.summary.recall import best_methods
from probes.studies.summary.results import Figures, whole
from probes.studies.summary.safety_rules import longest_list, scaled_trial
from probes.studies.tables import interval

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
    found = "; ".join(planted) or "no head was planted to check it"
    sentences = [
        f"To *detect*, read activations: {_detectors(results)}.",
        f"To *mitigate inside one model*: subtracting its own direction lowers the behaviour "
        f"({how('within-steering')}), does more than random directions ({how('within-specific')}) and acts on what "
        f"was taught rather than on its form ({how('content')}).",
        f"To *carry a direction to another model* through a linear map: it lowers the behaviour there "
        f"({how('transfer-lowers')}), and the model's own direction is the better tool ({how('own-beats-mapped')}); "
        f"between real families: {_verdict(results, 'transfer-families')}.",
        f"To *steer a few attention heads* (HSI): held-out choices move by far ({how('wanted-rise')}), open answers "
        f"follow ({how('carries-over')}), and it is these heads and directions ({how('these-heads')}).",
        f"To *find the heads that carry safety* (Ships, Sahara): ablating them makes the model answer what it refused "
        f"({how('top-head')}), and it is these heads and not any ({how('safety-specific')}); "
        f"{_scaled(results)}{found}.",
    ]
    return ["## In five sentences", "", *(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1))]


def _detectors(results: Sequence[StudyResult]) -> str:
    """Which reading to take, and how well it tells harmful requests from their twins."""
    return "; ".join(whole(r, _readings) for r in results if r.study == "detectors") or "not run"


def _readings(measured: Figures) -> str:
    methods, reference = measured["methods"], measured["reference"]
    others = [name for name in methods if name != reference]
    better = [name for name in others if Verdict(methods[name]["verdict"]).works]
    figures = methods[reference]["figures"]
    known = "the shipped probe" if reference == SHIPPED else reference
    if better:
        said = f"take {' or '.join(better)}, better than {known} at no worse rates"
    else:
        said = f"take {known}, since none of {len(others)} other readings has a surely larger AUROC at no worse rates"
    return (
        f"{said} (of {known} the AUROC against harmless twins is {interval(figures['auroc'])}, and at a "
        f"threshold with false alarms on {interval(figures['everyday_fpr'])} of everyday messages it flags "
        f"{interval(figures['tpr'])} of harmful requests)"
    )


def _scaled(results: Sequence[StudyResult]) -> str:
    """What the paper's other ablation of the first heads does to models that refuse; empty where it was not tried."""
    said = [whole(r, _of_scaled) for r in results if r.study == "safety"]
    return "".join(f"{words}; " for words in said if words)


def _of_scaled(measured: Figures) -> str:
    name = longest_list(measured)
    trial = scaled_trial(measured, name)
    if trial is None or effect(measured["before"], trial) is not None:
        return ""
    before, after = (interval(side["harmful"]["complied"]) for side in (measured["before"], trial))
    return (
        f"with the {name} scaled to nothing (SC) it complies with {after} of harmful requests for {before}, "
        f"{measured['verdicts'][scaled(name)]['sentence']}"
    )


def _verdict(results: Sequence[StudyResult], study: str) -> str:
    """The verdicts of a study's results, or that there are none."""
    said = [str(r.measured["verdict"]["sentence"]).rstrip(".") for r in results if r.study == study]
    return "; ".join(said) or "not run"
