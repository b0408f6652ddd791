"""The helpers of conftest.py: a missing program skips and is named, in CI it fails; no setting leaks in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow

_SUITE = """
import os
from pathlib import Path
from tests.conftest import needs_program

def test_missing():
    needs_program("no-such-program-here", "apt-get install no-such-program")

def test_there():
    assert needs_program("sh", "it is always there").endswith("/sh")

def test_nothing_leaks_in():
    assert not [n for n in os.environ if n.startswith("AWRY_")]
    assert not Path("awry.toml").exists()
"""


def run_suite(folder: Path, ci: bool, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text("from tests.conftest import *\nfrom tests.conftest import _isolated\n")
    (folder / "test_it.py").write_text(_SUITE)
    (folder / "awry.toml").write_text("model = 'elsewhere'\n")
    environment = {k: v for k, v in os.environ.items() if k != "CI"}
    environment |= {"PYTHONPATH": str(ROOT), "AWRY_MODEL": "elsewhere"} | ({"CI": "true"} if ci else {})
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        str(folder),
        *arguments,
    ]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("ci", [False, True])
def test_a_missing_program_skips_but_fails_in_ci(tmp_path: Path, ci: bool) -> None:
    done = run_suite(tmp_path, ci)
    if ci:
        assert done.returncode == 1, done.stdout
        assert "1 failed, 2 passed" in done.stdout
        assert "no-such-program-here is missing in CI" in done.stdout
        assert "apt-get install no-such-program" in done.stdout
    else:
        assert done.returncode == 0, done.stdout
        assert "2 passed, 1 skipped" in done.stdout
        summary = done.stdout.partition("outside programs that were missing")[2]
        assert "no-such-program-here: apt-get install no-such-program" in summary


def test_the_tests_of_a_file_run_in_one_process(tmp_path: Path) -> None:
    """Else what a file makes once is made in each, and a test runs without those before it."""
    for name in ("one", "other", "third"):
        (tmp_path / f"test_{name}.py").write_text(
            "import os\nfrom pathlib import Path\nimport pytest\n\n"
            '@pytest.mark.parametrize("n", range(8))\n'
            "def test_it(n):\n"
            f"    Path({str(tmp_path)!r}, 'ran-{name}-' + os.environ['PYTEST_XDIST_WORKER']).touch()\n"
        )
    done = run_suite(tmp_path, False, "-n", "2", "--dist", "loadgroup")
    assert done.returncode == 0, done.stdout
    assert sorted(path.name.split("-")[1] for path in tmp_path.glob("ran-*")) == ["one", "other", "third"]


def test_what_another_process_missed_is_named_too(tmp_path: Path) -> None:
    done = run_suite(tmp_path, False, "-n", "1")
    assert done.returncode == 0, done.stdout
    summary = done.stdout.partition("outside programs that were missing")[2]
    assert "no-such-program-here: apt-get install no-such-program" in summary
