"""What counts as the behaviour: a tested judge, or a command of the user's own.

Contract: a metric gets the user messages and what was answered to each, and says for each answer whether it shows the
behaviour. A command reads JSON lines {"prompt", "answer"} on standard input and writes one line, 0 or 1, for each, in
the same order. `fingerprint` changes with the metric's code, so that results cached under an older one are not reused;
of a command it covers the files among its arguments, and not what these import.

Errors hold no prompt and no answer, so a command's standard error is not shown: it may hold both.
"""

from __future__ import annotations

import inspect
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError
from probes.hashing import sha256_bytes, sha256_text

Judge = Callable[[str], bool]


class Metric(Protocol):
    """Says for each answer whether it shows the behaviour."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.bool_]: ...


@dataclass(frozen=True)
class JudgeMetric:
    """A judge of single answers, such as those in `probes.organisms.judges.JUDGES`."""

    name: str
    judge: Judge

    @property
    def fingerprint(self) -> str:
        try:
            source = inspect.getsource(inspect.getmodule(self.judge) or self.judge)
        except (OSError, TypeError):
            source = ""
        return sha256_text(f"{self.name}|{getattr(self.judge, '__qualname__', '')}|{source}")

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.bool_]:
        return np.array([bool(self.judge(answer)) for _, answer in zip(prompts, answers, strict=True)], dtype=np.bool_)


@dataclass(frozen=True)
class CommandMetric:
    """The user's own command, started once for each list of answers."""

    command: tuple[str, ...]
    timeout_s: float = 600.0

    @property
    def name(self) -> str:
        return f"command {shlex.join(self.command)}"

    @property
    def fingerprint(self) -> str:
        parts = [word.encode("utf-8", "surrogatepass") for word in self.command]
        files = [Path(word) for word in self.command]
        return sha256_bytes(b"\0".join(parts + [path.read_bytes() for path in files if path.is_file()]))

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.bool_]:
        rows = [{"prompt": p, "answer": a} for p, a in zip(prompts, answers, strict=True)]
        lines = self._run("".join(json.dumps(row) + "\n" for row in rows))
        if len(lines) != len(rows):
            raise DataError(
                f"metric: {self.command[0]} wrote {len(lines)} lines for {len(rows)} answers; one each, please"
            )
        wrong = [i for i, line in enumerate(lines) if line not in ("0", "1")]
        if wrong:
            raise DataError(f"metric: line {wrong[0] + 1} of {self.command[0]}'s output is neither 0 nor 1")
        return np.array([line == "1" for line in lines], dtype=np.bool_)

    def _run(self, text: str) -> list[str]:
        name = self.command[0]
        try:
            done = subprocess.run(
                self.command, input=text.encode(), capture_output=True, timeout=self.timeout_s, check=False
            )
        except OSError as error:
            raise DataError(f"metric: cannot start {name} ({error.strerror}); give a program that is there") from None
        except subprocess.TimeoutExpired:
            raise DataError(f"metric: {name} was stopped after {self.timeout_s:g} s without an end") from None
        if done.returncode != 0:
            raise DataError(
                f"metric: {name} ended with exit status {done.returncode}; what it wrote to standard error is not "
                "shown here, since it may hold prompts: run it by hand on one JSON line {prompt, answer}"
            )
        return [line.strip() for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]


def parse_metric(text: str, judges: Mapping[str, Judge]) -> Metric:
    """A judge by name, or any other text as a command line. DataError when it is empty or cannot be split."""
    if text in judges:
        return JudgeMetric(text, judges[text])
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise DataError(f"metric: the command line cannot be read ({error})") from None
    if not words:
        raise DataError(f"metric: none given; name a judge ({', '.join(judges)}) or a command")
    if shutil.which(words[0]) is None:
        raise DataError(f"metric: {words[0]!r} is no judge ({', '.join(judges)}) and no program that is here")
    return CommandMetric(words)
