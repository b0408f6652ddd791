"""RESULT.json: written and read back, and files that are none of this version."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from probes.errors import DataError
from probes.studies.framework.result import FILE, measured_of, read_result, write_measured, write_result
from probes.studies.framework.verdict import Judgement, Verdict

JUDGEMENT = Judgement(Verdict.NOISE, "the text breaks", ["one", "two"], ["a warning"], {"fall": {"value": 0.3}})


def measured(**changed: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "command": "awry study x",
        "model": {"subject": {"model": "m", "revision": "r"}, "control": {"model": "m", "revision": "s"}},
        "data": {"sha256": "0"},
        "plan": {"seed": 3},
        "verdict": JUDGEMENT.as_dict(),
        "probes": ["x.json"],
        "effect": {"value": 0.25, "worst": math.inf, "none": math.nan},
    } | changed


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_measured(tmp_path / "new", "heads", measured())
    found = read_result(tmp_path / "new" / FILE)
    assert (found.study, found.name, found.command) == ("heads", "new", "awry study x")
    assert found.models == ["m"]
    assert found.verdict is Verdict.NOISE
    assert not found.synthetic
    assert found.figures == {"effect": {"value": 0.25, "worst": None, "none": None}}
    assert found.measured["plan"] == {"seed": 3}
    stored = json.loads((tmp_path / "new" / FILE).read_text())
    assert stored["verdict"]["sentence"] == "noise: the text breaks"
    # What a report is made of is there again, whatever was written first.
    write_measured(tmp_path / "again", "heads", measured_of(stored))
    assert json.loads((tmp_path / "again" / FILE).read_text()) == stored


def test_figures_go_through_rounding_and_the_envelope_is_not_repeated_in_them(tmp_path: Path) -> None:
    done = write_result(
        tmp_path,
        study="transfer",
        name="t",
        command="",
        model={"a": {"model": "planted-a"}},
        data={},
        plan={},
        verdict=JUDGEMENT,
        figures={"name": "not here", "gain": 1 / 3},
        rounded=lambda value: round(value, 2),
    )
    assert done["figures"] == {"gain": 0.33}
    found = read_result(tmp_path)
    assert found.command is None
    assert found.synthetic


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("{not json", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
        ("{}", "was made by an older version"),
        ('{"format": "awry-heads/1", "verdict": "noise"}', "was made by an older version .* run the study again"),
        ('{"format": 3}', "was made by an unknown version .format is 3, not 2"),
        ('{"format": 2, "study": "heads"}', "of format 2 it lacks 'format'|of format 2 it lacks 'name'"),
    ],
)
def test_what_is_no_result_of_this_version_is_named(tmp_path: Path, written: str, reason: str) -> None:
    (tmp_path / FILE).write_text(written)
    with pytest.raises(DataError, match=reason) as error:
        read_result(tmp_path)
    assert str(tmp_path / FILE) in str(error.value)


def test_an_envelope_with_a_verdict_of_no_vocabulary_or_a_model_without_a_name_does_not_fit(tmp_path: Path) -> None:
    stored = write_measured(tmp_path, "heads", measured())
    for part, value in (("verdict", {"label": "splendid"}), ("model", {"subject": {}}), ("plan", [])):
        (tmp_path / FILE).write_text(json.dumps(stored | {part: value}))
        with pytest.raises(DataError, match="of format 2 it"):
            read_result(tmp_path)


def test_only_verdicts_that_work_work() -> None:
    assert [v for v in Verdict if v.works] == [
        Verdict.WORKS_SPECIFIC,
        Verdict.WORKS_NOT_SPECIFIC,
        Verdict.SPECIFICITY_UNKNOWN,
    ]
