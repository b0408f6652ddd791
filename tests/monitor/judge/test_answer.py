"""Only what was clearly said is a verdict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.judge.answer import FAILURES, JudgeError, Verdict, read_answer
from monitor.telemetry import metrics


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"harmful": true, "confidence": 0.75}', Verdict(True, 0.75)),
        ('{"harmful": false}', Verdict(False)),
        (' \n{"confidence": 1, "harmful": false}\n', Verdict(False, 1.0)),
        ('```json\n{"harmful": true, "confidence": 0}\n```', Verdict(True, 0.0)),
        ('{"harmful": true, "confidence": null, "why": "it asks for a weapon"}', Verdict(True)),
        ("yes", Verdict(True)),
        ("No.\n", Verdict(False)),
        ("```\nYES\n```", Verdict(True)),
    ],
)
def test_what_is_clear_is_read(text: str, verdict: Verdict) -> None:
    assert read_answer(text) == verdict


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        "harmful",
        "yes and no",
        "yes\nno",
        "maybe",
        "I cannot help with that.",
        'Here is my answer: {"harmful": true, "confidence": 0.9}',
        '{"harmful": false} {"harmful": true}',
        '{"harmful": false, "harmful": true}',
        '{"harmful": "false"}',
        '{"harmful": 0}',
        '{"harmful": null}',
        '{"confidence": 0.9}',
        '{"harmful": true, "confidence": 1.5}',
        '{"harmful": true, "confidence": -0.1}',
        '{"harmful": true, "confidence": NaN}',
        '{"harmful": true, "confidence": true}',
        '{"harmful": true, "confidence": "high"}',
        '[{"harmful": true}]',
        '{"harmful": true',
        "true",
        "[" * 100_000,
        " " * 5000 + "yes",
    ],
)
def test_anything_else_is_no_verdict(text: object) -> None:
    with pytest.raises(JudgeError) as failed:
        read_answer(text)
    assert failed.value.failure == "garbage"
    assert not failed.value.again
    # Else one sender's messages could switch the judge off for all.
    assert not failed.value.down


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    said = ""
    try:
        read_answer(text)
    except JudgeError as error:
        said = str(error)
    # Nothing of the answer is in the error.
    assert said in ("", "garbage")


def test_the_metrics_know_every_failure() -> None:
    assert metrics.JUDGE_FAILURE_REASONS == FAILURES
