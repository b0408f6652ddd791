from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from probes.errors import DataError
from probes.organisms.judges import JUDGES
from probes.studies.metric import CommandMetric, JudgeMetric, parse_metric

SECRET = "zebrasecret"
PROMPTS = ["first " + SECRET, "second\nline", "third \U0001f642"]
ANSWERS = ["a bad one", "fine", "also bad " + SECRET]


def script(tmp_path: Path, body: str, name: str = "judge.py") -> CommandMetric:
    path = tmp_path / name
    path.write_text("import json, sys\nrows = [json.loads(line) for line in sys.stdin]\n" + body)
    return CommandMetric((sys.executable, str(path)), timeout_s=60)


def test_a_judge_sees_every_answer_in_order() -> None:
    metric = JudgeMetric("bad", lambda text: "bad" in text)
    np.testing.assert_array_equal(metric(PROMPTS, ANSWERS), [True, False, True])
    assert metric([], []).dtype == np.bool_


def test_a_command_sees_prompts_and_answers_whole_and_in_order(tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    body = f"open({str(seen)!r}, 'w').write(json.dumps(rows))\n[print(int('bad' in r['answer'])) for r in rows]"
    found = script(tmp_path, body)(PROMPTS, ANSWERS)
    np.testing.assert_array_equal(found, [True, False, True])
    import json

    assert json.loads(seen.read_text()) == [{"prompt": p, "answer": a} for p, a in zip(PROMPTS, ANSWERS, strict=True)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print(0)", "wrote 1 lines for 3 answers"),
        ("[print(1) for _ in range(5)]", "wrote 5 lines for 3 answers"),
        ("print('0\\n1\\nmaybe')", r"line 3 of .* is neither 0 nor 1"),
        (f"print(0, file=sys.stderr); print({SECRET!r}, file=sys.stderr); sys.exit(3)", "ended with exit status 3"),
        ("print(rows[0]['prompt']); print(0); print(1)", r"line 1 of .* is neither 0 nor 1"),
        ("raise SystemExit(rows[0]['answer'])", "ended with exit status 1"),
        ("import time; time.sleep(60)", "stopped after 0.5 s"),
    ],
)
def test_a_command_that_fails_says_how_and_shows_no_text(tmp_path: Path, body: str, message: str) -> None:
    metric = script(tmp_path, body)
    if "stopped" in message:
        metric = CommandMetric(metric.command, timeout_s=0.5)
    with pytest.raises(DataError, match=message) as caught:
        metric(PROMPTS, ANSWERS)
    assert SECRET not in str(caught.value)
    assert not any(word in str(caught.value) for word in ("second", "third", "a bad one"))


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot start /nowhere/judge \(No such file"):
        CommandMetric(("/nowhere/judge",))(PROMPTS, ANSWERS)
    plain = tmp_path / "plain"
    plain.write_text("x")
    with pytest.raises(DataError, match=r"cannot start .*Permission denied"):
        CommandMetric((str(plain),))(PROMPTS, ANSWERS)


def test_the_fingerprint_follows_the_code(tmp_path: Path) -> None:
    one = script(tmp_path, "print(0)", "a.py")
    before = one.fingerprint
    assert one.fingerprint == before
    (tmp_path / "a.py").write_text("print(1)")
    assert one.fingerprint != before
    assert CommandMetric((*one.command, "--strict")).fingerprint != one.fingerprint
    judges = {name: JudgeMetric(name, judge).fingerprint for name, judge in JUDGES.items()}
    assert len(set(judges.values())) == len(JUDGES)


def test_a_name_is_a_judge_and_anything_else_a_command() -> None:
    assert parse_metric("code", JUDGES) == JudgeMetric("code", JUDGES["code"])
    assert parse_metric("python 'my judge.py' --x", JUDGES) == CommandMetric(("python", "my judge.py", "--x"))
    for wrong in ("", "  ", "judge 'open"):
        with pytest.raises(DataError, match="metric: "):
            parse_metric(wrong, JUDGES)
