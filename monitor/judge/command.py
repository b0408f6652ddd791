"""A judge that is a program: one run a question, JSON on its standard input, the verdict on its standard output.

Contract: the program is started without a shell, in a session of its own and the worker's folder, and gets one line of
JSON: `probe`, `question`, `conversation` (lines of JSON, a turn each) and `chat` (the messages that an
endpoint would get). It prints what `read_answer` takes and ends with status 0. What it prints on standard error is
thrown away: it may quote the message. At the time limit, or past MAX_ANSWER_BYTES, it and what it started are killed.
No variable `AWRY_*` is in its environment: they hold awry's own secrets.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from monitor.judge.answer import JudgeError, Verdict, read_answer
from monitor.judge.base import Asked
from monitor.judge.connection import MAX_ANSWER_BYTES
from monitor.judge.prompt import PROMPT_VERSION, chat_of


class CommandJudge:
    """Runs a program for each question."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    @property
    def host(self) -> str:
        """Text goes to a program of this machine; where that sends it, the owner knows."""
        return "command"

    @property
    def name(self) -> str:
        return f"command {Path(self._command[0]).name}"

    @property
    def key(self) -> str:
        return f"{PROMPT_VERSION} {json.dumps(self._command)}"

    def ask(self, asked: Asked, seconds: float) -> Verdict:
        given = {"probe": asked.probe, "question": asked.question, "conversation": asked.text}
        line = json.dumps(given | {"chat": chat_of(asked.question, asked.text)}).encode() + b"\n"
        deadline = time.monotonic() + seconds
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWRY_")}
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError):
            raise JudgeError("command failed") from None
        try:
            printed = _exchange(process, line, deadline)
            try:
                status = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise JudgeError("timeout") from None
        finally:
            _end(process)
        if status != 0:
            raise JudgeError("command failed")
        try:
            return read_answer(printed.decode("utf-8"))
        except UnicodeDecodeError:
            raise JudgeError("garbage") from None

    def close(self) -> None:
        """Nothing is kept."""


def _exchange(process: subprocess.Popen[bytes], line: bytes, deadline: float) -> bytes:
    """Write the line and read what is printed, both at once: a program may print before it has read everything."""
    written, printed = memoryview(line), bytearray()
    stdin, stdout = _pipe(process.stdin), _pipe(process.stdout)
    os.set_blocking(stdin.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(stdout, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                raise JudgeError("timeout")
            for key, _ in ready:
                if key.fileobj is stdin:
                    try:
                        written = written[os.write(stdin.fileno(), written[:65536]) :]
                    except BlockingIOError:
                        continue
                    except BrokenPipeError:  # it reads no further, and may answer all the same
                        written = written[:0]
                    if not written:
                        selector.unregister(stdin)
                        with suppress(OSError):
                            stdin.close()
                else:
                    chunk = os.read(stdout.fileno(), 65536)
                    if not chunk:
                        return bytes(printed)
                    printed += chunk
                    if len(printed) > MAX_ANSWER_BYTES:
                        raise JudgeError("too large")


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise JudgeError("internal error")
    return pipe


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of it and of what it started, and close the pipes."""
    # It leads its group. Once it was waited for, its number may be another's.
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
