"""JSON lines, appended to a file or to standard output.

Contract: a file that is new is readable for its owner alone, since answers and dead letters hold text. One that is
there keeps its mode.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from monitor.errors import OutputError
from monitor.stream.sinks import Line


class JsonLinesSink:
    """Appends to `path`; `-` is standard output. `setting` is named in errors."""

    def __init__(self, path: str, setting: str) -> None:
        self._path = path
        self._setting = setting
        self._own = path != "-"
        try:
            self._file: TextIO = (
                open(path, "a", encoding="utf-8", opener=_for_us)  # noqa: SIM115
                if self._own
                else sys.stdout
            )
        except OSError as error:
            raise OutputError(f"{setting}: cannot write {path} ({error.strerror})") from error

    def write(self, lines: Sequence[Line]) -> None:
        try:
            for line in lines:
                self._file.write(_text(line.value, self._file.encoding) + "\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self._setting}: cannot write {self._path} ({error.strerror})") from error

    def close(self) -> None:
        if self._own:
            self._file.close()


def _for_us(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _text(value: dict[str, Any], encoding: str) -> str:
    """As it reads; escaped where the output cannot hold it, as no encoding can half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value)
    return text
