"""Result cache on disk: a study that was interrupted resumes from it.

Contract: results are stored below `folder/KEY`, where KEY is a hash of everything that decides them (`identity`: plain
data), so that another identity reads none of them. A file is JSON and is renamed into place. One that cannot be read,
is cut short or holds another name is a miss, so that its result is computed again; `broken` counts these, `hits` the
results that were read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from awry.whole_file import SHARED, whole_file
from probes.errors import DataError
from probes.hashing import sha256_json, sha256_text


class ResultCache:
    """Named JSON results under one identity. DataError when the folder cannot be written to."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.key = sha256_json(identity, default=str)[:16]
        self.hits = 0
        self.broken = 0
        self._folder = folder / self.key
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "identity.json").write_text(json.dumps(identity, indent=2, default=str) + "\n")
        except OSError as error:
            raise DataError(f"study folder: cannot write to {folder} ({error.strerror}); choose another out") from error

    def get(self, name: str) -> Any:
        """The result of that name, or None."""
        try:
            stored = json.loads(self._path(name).read_text())
            value = stored["value"] if stored["name"] == name else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self.broken += 1
            return None
        self.hits += 1
        return value

    def put(self, name: str, value: Any) -> None:
        """Store a result (numbers, texts, lists, objects). DataError when it cannot be written."""
        path = self._path(name)
        try:
            with whole_file(path, mode=SHARED) as file:
                file.write(json.dumps({"name": name, "value": value}).encode())
        except OSError as error:
            raise DataError(f"study folder: cannot write {path.name} ({error.strerror}); is the disk full?") from error

    def _path(self, name: str) -> Path:
        return self._folder / f"{sha256_text(name)[:24]}.json"
