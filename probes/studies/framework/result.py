"""RESULT.json of every study: one envelope, format 2.

Contract: `write_result(folder, ...)` writes {study, format: 2, name, created, command, model, data, plan, verdict,
figures, probes} and returns it; `read_result(path)` gives the `StudyResult` of such a file. Anything else is a
DataError that names the file and what it lacks; a result of a version before (one layout a study, each with its own
meaning of `good`) is named as old. NaN and infinity become null.

- `model`: the identity of each model measured, by its role in the study ("subject" where there is one only);
- `data`: hashes and sizes of what was measured on; `plan`: the settings of the run;
- `verdict`: {label, sentence, ...}, `probes.studies.framework.verdict.Judgement.as_dict`; the label is a `Verdict`;
- `figures`: what was measured, the study's own;
- `probes`: files beside it that the study exported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
    """A RESULT.json read. `name` is that of its folder; `measured` holds the envelope's fields and the figures."""

    study: str
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
    version = stored.get("format")
    if version != FORMAT:
        old = version is None or isinstance(version, str)  # before this envelope, with a layout of each study's own
        made = f"was made by an {'older' if old else 'unknown'} version (format is {version!r}, not {FORMAT})"
        raise DataError(f"{path}: {made}; run the study again with this one")
    try:
        return _read(path, stored)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else f"does not fit ({type(error).__name__}: {error})"
        raise DataError(f"{path}: as a RESULT.json of format {FORMAT} it {lacks}; run the study again") from error


def _read(path: Path, stored: dict[str, Any]) -> StudyResult:
    for name in _FIELDS:
        stored[name]
    for name in _MAPPINGS:
        if not isinstance(stored[name], dict):
            raise TypeError(f"{name} is no object")
    result = StudyResult(str(stored["study"]), path.parent.name, path, measured_of(stored))
    _ = result.models, result.verdict  # which must be readable
    return result
