"""A program as the judge: real processes."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

import pytest

from monitor.judge.answer import JudgeError
from monitor.judge.base import Asked
from monitor.judge.command import CommandJudge

ASKED = Asked("drift", "Is it harmful?", "x" * 300_000)


def judge(code: str) -> CommandJudge:
    return CommandJudge([sys.executable, "-c", code])


def failure(code: str, seconds: float = 10.0) -> str:
    with pytest.raises(JudgeError) as failed:
        judge(code).ask(ASKED, seconds)
    return failed.value.failure


def test_a_question_and_its_verdict() -> None:
    """The whole question arrives: it is longer than a pipe holds."""
    code = (
        "import json, sys\nasked = json.load(sys.stdin)\n"
        "ok = len(asked['conversation']) == 300000 and asked['probe'] == 'drift'\n"
        "ok = ok and asked['question'] and asked['chat']\n"
        "print(json.dumps({'harmful': bool(ok), 'confidence': 0.5}))"
    )
    verdict = judge(code).ask(ASKED, 20)
    assert (verdict.harmful, verdict.confidence) == (True, 0.5)


def test_a_program_may_answer_before_it_has_read_everything() -> None:
    assert judge("print('yes')").ask(ASKED, 20).harmful


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('perhaps')", "garbage"),
        ("import sys; sys.stdout.buffer.write(b'\\xff')", "garbage"),
        ("print('yes'); raise SystemExit(3)", "command failed"),
        ("import sys; print('yes', file=sys.stderr)", "garbage"),
        ("print('y' * 10_000_000)", "too large"),
        ("import time; time.sleep(60)", "timeout"),
        ("import os, time; os.close(1); time.sleep(60)", "timeout"),
        ("while True: pass", "timeout"),
    ],
)
def test_whatever_it_does_is_named(code: str, said: str) -> None:
    started = time.monotonic()
    assert failure(code, 1.0 if said == "timeout" else 20.0) == said
    assert time.monotonic() - started < 15


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(JudgeError) as failed:
        CommandJudge(["/nowhere/judge"]).ask(ASKED, 5)
    assert (failed.value.failure, failed.value.down) == ("command failed", True)


def test_nothing_runs_on_after_the_time_limit(tmp_path: Path) -> None:
    """What it started is killed too."""
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(60)"
    )
    assert failure(code, 5.0) == "timeout"
    for pid in map(int, pids.read_text().split()):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and _runs(pid):
            time.sleep(0.05)
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_shell_and_none_of_awrys_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWRY_DATABASE_URL", "postgresql://u:geheim@h/d")
    monkeypatch.setenv("JUDGE_TOKEN", "its own")
    code = "import json, os, sys\nprint(json.dumps({'harmful': 'AWRY_DATABASE_URL' in os.environ}))"
    assert not judge(code).ask(ASKED, 20).harmful
    own = "import json, os\nprint(json.dumps({'harmful': os.environ.get('JUDGE_TOKEN') == 'its own'}))"
    assert judge(own).ask(ASKED, 20).harmful
    spied = "import json, sys\nprint(json.dumps({'harmful': sys.argv[1] == '$(touch x); *'}))"
    assert CommandJudge([sys.executable, "-c", spied, "$(touch x); *"]).ask(ASKED, 20).harmful
    assert not (tmp_path / "x").exists()


def test_its_name_holds_no_arguments() -> None:
    found = CommandJudge(["/opt/judge.py", "--token", "geheim"])
    assert (found.name, found.host) == ("command judge.py", "command")
    assert json.dumps("geheim") not in found.name


def test_no_files_stay_open() -> None:
    gc.collect()  # what other tests left
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        judge("print('no')").ask(ASKED, 20)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
