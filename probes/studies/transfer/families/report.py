"""Runs a study between families and writes RESULT.json (format 2), TRANSFER.md and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from probes.hashing import sha256_json, sha256_lines
from probes.progress import Progress, silent
from probes.studies.framework.result import write_result
from probes.studies.transfer.families.figures import figures_of
from probes.studies.transfer.families.picture import plot_families
from probes.studies.transfer.families.plan import Family, FamilyPlan, FamilyTexts
from probes.studies.transfer.families.run import measure_families
from probes.studies.transfer.families.tables import markdown
from probes.studies.transfer.families.verdict import study_verdict

STUDY = "transfer-families"


def run_families(
    families: Sequence[Family],
    texts: FamilyTexts,
    folder: Path,
    *,
    plan: FamilyPlan | None = None,
    command: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """The whole study; returns what RESULT.json holds. It resumes from `folder/cache`."""
    plan = plan or FamilyPlan()
    measured = measure_families(families, texts, folder / "cache", plan, progress)
    figures = figures_of(measured)
    result = write_result(
        folder,
        study=STUDY,
        name=folder.name,
        command=command,
        model={f["name"]: f["identity"] for f in figures["families"]},
        data=_hashes(texts),
        plan=asdict(plan),
        verdict=study_verdict(figures),
        figures=figures,
        rounded=partial(round, ndigits=4),
    )
    (folder / "TRANSFER.md").write_text(markdown(result), encoding="utf-8")
    plot_families(result["figures"], folder / "transfer.png")
    return result


def _hashes(texts: FamilyTexts) -> dict[str, str]:
    """Of every list of texts, a hash."""
    lists = {
        f"{behaviour.name}/{split}": sha256_json([[*part.shows], [*part.lacks]])
        for behaviour in texts.behaviours
        for split, part in (("fit", behaviour.fit), ("select", behaviour.select), ("test", behaviour.test))
    }
    steered = {
        "steered select": sha256_lines(map(repr, texts.select)),
        "steered test": sha256_lines(map(repr, texts.test)),
    }
    return {"anchors": sha256_lines(texts.anchors), "everyday": sha256_lines(texts.everyday), **lists, **steered}
