"""What can be known to be wrong before a model is loaded, which takes seconds to minutes.

Contract: each check raises SettingsError that names the option and the fix, and creates nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from monitor.errors import SettingsError


def check_file_out(name: str, path: Path) -> None:
    """A file that can be written: its folder is there."""
    if path.is_dir():
        raise SettingsError(f"{name}: {path} is a folder; name a file")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise SettingsError(f"{name}: there is no folder {folder}; make it, or choose another file")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise SettingsError(f"{name}: {path} cannot be written; choose another file")


def check_folder_out(name: str, folder: Path) -> None:
    """A folder that can be written to, or made."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "may not be written to" if there.is_dir() else "is a file"
        raise SettingsError(f"{name}: {there} {what}; choose another folder")


def check_share(name: str, value: float | None) -> None:
    """A rate between 0 and 1; None is not given."""
    if value is not None and not 0 < value < 1:
        raise SettingsError(f"{name}: {value:g} is not between 0 and 1; write for example 0.01")
