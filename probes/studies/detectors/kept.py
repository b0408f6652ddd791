"""Arrays on disk, so that activations are read once and an interrupted study goes on.

Contract: `KeptArrays(folder, identity)` stores named groups of arrays as .npz below a hash of everything that decides
them; `get_or` reads a group, or makes it and keeps it. A file that cannot be read is made again. DataError where the
folder cannot be written to. Nothing of a message's text is stored.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awry.whole_file import SHARED, whole_file
from probes.errors import DataError
from probes.hashing import sha256_json, sha256_text

Arrays = dict[str, NDArray[Any]]


class KeptArrays:
    """Groups of arrays under one identity (plain data)."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder / sha256_json(identity, default=str)[:16]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "identity.json").write_text(json.dumps(identity, indent=2, default=str) + "\n")
        except OSError as error:
            raise DataError(f"study folder: cannot write to {folder} ({error.strerror}); choose another out") from error

    def get_or(self, name: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
        """The group of that name; `make` is called where it is not there."""
        path = self._folder / f"{sha256_text(name)[:24]}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            made = dict(make())
        try:
            with whole_file(path, mode=SHARED) as file:
                np.savez(file, **made)  # type: ignore[arg-type]
        except OSError as error:
            raise DataError(f"study folder: cannot write {path.name} ({error.strerror}); is the disk full?") from error
        return made
