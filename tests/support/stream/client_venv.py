"""Environments of their own for client libraries whose pins may clash with awry's: made by uv, kept between runs.

`client_python("litellm==1.2")` is the interpreter of an environment with these packages. The folder's name is a hash of
the requirements and of Python's version, so that another list makes another environment. Where it cannot be made (no
uv, no package index), the test skips and says so at the end of the run; in CI it fails.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import conftest

_SECONDS = 240
_READY = "ready"


def client_python(*requirements: str) -> Path:
    """The Python of an environment that has `requirements`."""
    named = "\n".join((*sorted(requirements), sys.version))
    folder = _cache() / hashlib.sha256(named.encode()).hexdigest()[:16]
    python = folder / "bin" / "python"
    if (folder / _READY).exists():
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several processes of one run want the same environment.
    with folder.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _READY).exists():
            _make(folder, python, requirements)
    return python


def _make(folder: Path, python: Path, requirements: tuple[str, ...]) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        _missing("uv", "pip install uv")
        return
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
        if done.returncode:
            _missing(" ".join(requirements), f"uv pip install {' '.join(requirements)} ({done.stderr.strip()[-200:]})")
    (folder / _READY).touch()


def _missing(name: str, install_line: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing in CI, where nothing may be skipped: {install_line}", pytrace=False)
    conftest._missing_programs[name] = install_line
    pytest.skip(f"needs {name}: {install_line}")


def _cache() -> Path:
    given = os.environ.get("PYTEST_STATE_DIR")
    return (Path(given) if given else Path(tempfile.gettempdir()) / "awry-tests") / "client-environments"
