"""RESULT.json of every study: one envelope, format 2, and the readers of the four formats before it.

Contract: `write_result(folder, ...)` writes {study, format: 2, name, created, command, model, data, plan, verdict,
figures, probes} and returns it; `read_result(path)` gives a `StudyResult` of a file of format 2 or of format 1 (one
layout a study, made before studies shared one definition of `good`). Anything else is a DataError that names the file
and what it lacks. NaN and infinity become null.

- `model`: the identity of each model measured, by its role in the study ("subject" where there is one only);
- `data`: hashes and sizes of what was measured on; `plan`: the settings of the run;
- `verdict`: {label, sentence, ...}, `probes.studies.framework.verdict.Judgement.as_dict`; the label is a `Verdict`;
- `figures`: what was measured, the study's own; for a format 1 file, its fields as they are;
- `probes`: files beside it that the study exported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from probes.errors import DataError
from probes.studies.framework.verdict import Judgement, Verdict
from probes.studies.tables import plain

FORMAT = 2
FILE = "RESULT.json"
Figures = Mapping[str, Any]
_FIELDS = ("study", "format", "name", "created", "command", "model", "data", "plan", "verdict", "figures", "probes")
_MAPPINGS = ("model", "data", "plan", "verdict", "figures")


@dataclass(frozen=True)
class StudyResult:
    """A RESULT.json read. `name` is that of its folder.

    `measured` holds the envelope's fields and the figures side by side, with the same keys whatever the format.
    """

    study: str
    format: Literal[1, 2]
    name: str
    path: Path
    measured: Figures

    @property
    def command(self) -> str | None:
        return self.measured.get("command") or None

    @property
    def data(self) -> Figures:
        found: Figures = self.measured["data"]
        return found

    @property
    def figures(self) -> Figures:
        """What was measured, without the envelope."""
        return {key: value for key, value in self.measured.items() if key not in _FIELDS}

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.measured["verdict"]["label"])

    @property
    def models(self) -> list[str]:
        """Names of the models measured, each once."""
        return list(dict.fromkeys(str(identity["model"]) for identity in self.measured["model"].values()))

    @property
    def synthetic(self) -> bool:
        """Planted organisms (not planted heads of a real model) say that tools work, nothing else."""
        return any(name.startswith("planted") for name in self.models)


def write_result(
    folder: Path,
    *,
    study: str,
    name: str,
    command: str,
    model: Mapping[str, Figures],
    data: Figures,
    plan: Figures,
    verdict: Judgement | Figures,
    figures: Figures,
    probes: Sequence[str] = (),
    rounded: Callable[[float], float] = float,
) -> dict[str, Any]:
    """Write RESULT.json into `folder` (made if need be); returns what it holds, as plain data.

    What the envelope has a place for is left out of `figures`.
    """
    result: dict[str, Any] = plain(
        {
            "study": study,
            "format": FORMAT,
            "name": name,
            "created": datetime.now(UTC).date().isoformat(),
            "command": command,
            "model": model,
            "data": data,
            "plan": plan,
            "verdict": verdict.as_dict() if isinstance(verdict, Judgement) else verdict,
            "figures": {key: value for key, value in figures.items() if key not in _FIELDS},
            "probes": list(probes),
        },
        rounded,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return result


def write_measured(
    folder: Path, study: str, measured: Figures, rounded: Callable[[float], float] = float
) -> dict[str, Any]:
    """`write_result` of one dictionary that holds the envelope's fields and the figures side by side."""
    return write_result(
        folder,
        study=study,
        **{key: measured[key] for key in ("name", "command", "model", "data", "plan", "verdict", "probes")},
        figures=measured,
        rounded=rounded,
    )


def measured_of(stored: Figures) -> dict[str, Any]:
    """What `write_measured` was given, back from the RESULT.json that it wrote: reports are made of it."""
    return {**stored["figures"], **{key: value for key, value in stored.items() if key != "figures"}}


def read_result(path: Path) -> StudyResult:
    """A RESULT.json, or the one in a folder. DataError names the file and what it lacks."""
    path = path / FILE if path.is_dir() else path
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({type(error).__name__}); run the study again") from error
    if not isinstance(stored, dict):
        raise DataError(f"{path}: holds no JSON object; run the study again")
    version = FORMAT if stored.get("format") == FORMAT else 1
    try:
        result = _read_2(path, stored) if version == FORMAT else _read_1(path, stored)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else f"does not fit ({type(error).__name__}: {error})"
        raise DataError(f"{path}: as a RESULT.json of format {version} it {lacks}; run the study again") from error
    if result is None:
        raise DataError(
            f"{path}: `format` is neither {FORMAT} nor that of an older study; run the study again with this version"
        )
    return result


def _read_2(path: Path, stored: dict[str, Any]) -> StudyResult:
    for name in _FIELDS:
        stored[name]
    for name in _MAPPINGS:
        if not isinstance(stored[name], dict):
            raise TypeError(f"{name} is no object")
    return _checked(StudyResult(str(stored["study"]), 2, path.parent.name, path, measured_of(stored)))


def _checked(result: StudyResult) -> StudyResult:
    """The same, whose models and verdict can be read."""
    _ = result.models, result.verdict
    return result


# Format 1, one layout a study: made before one envelope, one vocabulary and one definition of `good`.


def _read_1(path: Path, stored: dict[str, Any]) -> StudyResult | None:
    """A format 1 file, by the field that named its kind; None for none of them."""
    for key, start, study, read in (
        ("what", "emergent-misalignment direction study", "direction", _old_direction),
        ("what", "ridge transfer of misalignment directions", "transfer", _old_transfer),
        ("format", "awry-heads/1", "heads", _old_heads),
        ("format", "awry-safety-heads/1", "safety", _old_safety),
    ):
        if str(stored.get(key, "")).startswith(start):
            return _checked(StudyResult(study, 1, path.parent.name, path, stored | read(stored)))
    return None


_OLD_DIRECTION = {"specific": Verdict.WORKS_SPECIFIC, "non-specific": Verdict.WORKS_NOT_SPECIFIC}


def _old_direction(stored: Figures) -> dict[str, Any]:
    verdict = stored["verdict"]
    label = _OLD_DIRECTION.get(verdict["label"]) or Verdict(verdict["label"])
    return {
        "model": stored["identities"],
        "data": {"sha256": stored["data_sha256"]},
        "verdict": verdict | {"label": str(label)},
    }


def _old_heads(stored: Figures) -> dict[str, Any]:
    reasons = stored["reasons"]
    judgement = Judgement(Verdict(stored["verdict"]), reasons[0], reasons)
    return {"model": {"subject": stored["model"]}, "verdict": judgement.as_dict()}


def _old_safety(stored: Figures) -> dict[str, Any]:
    reasons = [f"{name}: {text}" for name, text in stored["verdicts"].items()]
    judgement = Judgement(Verdict.UNDECIDED, "format 1 has a sentence for each set of heads and no label", reasons)
    return {"model": {"subject": stored["model"]}, "verdict": judgement.as_dict()}


def _old_transfer(stored: Figures) -> dict[str, Any]:
    reasons = [f"{mode}: {text}" for mode, text in stored["verdict"].items()]
    judgement = Judgement(Verdict.UNDECIDED, "format 1 has a sentence for each mode and no label", reasons)
    return {
        "model": {str(subject["name"]): subject["identity"] for subject in stored["subjects"]},
        "data": {"anchors": stored["anchors"]},
        "plan": stored["settings"],
        "verdict": judgement.as_dict(),
    }
