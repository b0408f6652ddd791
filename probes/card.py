"""Probe files: `NAME.safetensors` (directions) beside `NAME.json` (the card). Nothing is pickled.

Contract: `save_probe` and `load_probe` round-trip. A shipped probe is loaded by its name, `NAME@VERSION` for a version
that is not its latest. `probes.identity` says whether a probe fits a model. Scores and thresholds are in class gaps
(0: aligned mean, 1: misaligned mean).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from probes.calibration import Calibration
from probes.capture.aggregation import Aggregation, parse_aggregation
from probes.capture.sites import parse_site
from probes.directions import Direction
from probes.errors import ProbeFileError, ProbesError
from probes.hashing import card_digest, sha256_file
from probes.model.load import Message, ModelIdentity
from probes.scoring import Reader
from probes.seen import SeenRows
from probes.steer.steering import Intervention

# How the files of a shipped probe's earlier versions end.
_OLD_VERSION = re.compile(r"\.v\d+$")
# No number of a card is near it: seconds, counts, class gaps.
_LARGEST = 1e300


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DirectionCard(_Strict):
    """One direction's numbers; its vectors are in the safetensors file.

    `standard` is the mean and the deviation of its scores on the benign messages, where a maximum over directions needs
    them.
    """

    site: str
    norm: float
    sigma: float
    standard: tuple[float, float] | None = None


class Reference(_Strict):
    """A text of awry's own and the score that this probe gave it."""

    messages: list[Message]
    response: str | None = None
    score: float


class MitigationSite(_Strict):
    """A further site of a recipe; its mode and positions are the recipe's."""

    site: str
    strength: float
    sigma: float


class MitigationCard(_Strict):
    """How to remove the behaviour while generating, and what was measured when it was chosen.

    A recipe of several heads names the first in `site` and the others in `also`: it acts at all of them or not at all.
    """

    site: str
    mode: Literal["subtract", "ablate", "add"]
    strength: float
    positions: Literal["all", "last"]
    sigma: float
    cosine_to_detector: float | None
    also: list[MitigationSite] = Field(default_factory=list)
    measured: dict[str, Any] = Field(default_factory=dict)

    @property
    def parts(self) -> tuple[MitigationSite, ...]:
        """All sites of the recipe."""
        return (MitigationSite(site=self.site, strength=self.strength, sigma=self.sigma), *self.also)


class Card(_Strict):
    """Everything about a probe that is not a vector."""

    format: Literal["awry-probe/1"] = "awry-probe/1"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    version: int = Field(ge=1, le=2**31 - 1)
    created: str
    description: str
    units: str = "class gaps: 0 is the aligned mean, 1 the misaligned mean"
    identity: ModelIdentity
    aggregation: str
    # How several directions become one score (None: their mean), and how they were found (None: difference in means).
    # Fields that cards got later are null where they change nothing: a digest leaves out what is null.
    combine: Literal["max"] | None = None
    method: str | None = None
    directions: list[DirectionCard] = Field(min_length=1)
    safetensors_sha256: str
    calibration: Calibration
    evaluation: dict[str, Any]
    # What the attack suite measured (`probes.attacks`).
    attacks: dict[str, Any] | None = None
    # Digests of the rows that it was fitted, chosen and calibrated on.
    seen: SeenRows | None = None
    references: list[Reference]
    tolerance: float = Field(gt=0)
    mitigation: MitigationCard | None = None
    # What ran the model when references and threshold were made, with its version; None: transformers, of before this
    # field. It is said about the probe, and decides nothing: a start replays the references through its own engine.
    engine: str | None = Field(None, max_length=100)

    @property
    def threshold(self) -> float:
        return self.calibration.threshold


class Probe:
    """A detector ready to score: `reader` for `probes.scoring`, `card` for people, `interventions` to mitigate.

    `mitigators` are the recipe's directions: the one at `card.mitigation.site`, then those of `also`, in its order.
    """

    def __init__(self, card: Card, directions: Sequence[Direction], mitigators: Sequence[Direction] = ()) -> None:
        self.card = card
        self.directions = tuple(directions)
        self.mitigators = tuple(mitigators)
        self.aggregation: Aggregation = parse_aggregation(card.aggregation)
        self._on_disk: tuple[Card, str] | None = None

    @property
    def digest(self) -> str:
        """What the probe is known by, beside its name and version: see `probes.hashing.card_digest`. Of the card's file
        where `card` is what was read from one or written to one, so that a later awry gives the same."""
        if self._on_disk is not None and self._on_disk[0] is self.card:
            return self._on_disk[1]
        return card_digest(self.card.model_dump(mode="json"))

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def reader(self) -> Reader:
        standard = tuple(d.standard for d in self.card.directions if d.standard is not None)
        return Reader(self.directions, self.aggregation, self.card.combine or "mean", standard or None)

    @property
    def recipe(self) -> str:
        """What steers, in words, as rows and readings name it."""
        return f"{self.name}: {'; '.join(map(str, self.interventions))}"

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """The steering recipe, all of it to be applied together; empty when the probe has none."""
        recipe = self.card.mitigation
        if recipe is None:
            return ()
        return tuple(
            Intervention(direction, recipe.mode, part.strength, recipe.positions)
            for direction, part in zip(self.mitigators, recipe.parts, strict=True)
        )


def save_probe(probe: Probe, folder: Path) -> Path:
    """Write both files to `folder`, the card last; returns the card's path. The tensors' hash is filled in."""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for i, direction in enumerate(probe.directions):
        tensors[f"vector.{i}"] = direction.vector
        tensors[f"centre.{i}"] = direction.centre
    for i, direction in enumerate(probe.mitigators):
        tensors[_mitigation_key("vector", i)] = direction.vector
        tensors[_mitigation_key("centre", i)] = direction.centre
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights = folder / f"{probe.name}.safetensors"
        save_file(tensors, weights)
        weights.chmod(0o644)
        probe.card = probe.card.model_copy(update={"safetensors_sha256": sha256_file(weights)})
        path = folder / f"{probe.name}.json"
        written = probe.card.model_dump(mode="json")
        path.write_text(json.dumps(written, indent=2) + "\n")
        probe._on_disk = (probe.card, card_digest(written))
    except (OSError, SafetensorError) as error:
        raise ProbeFileError(f"probe {probe.name}: cannot write to {folder} ({error}); choose another --out") from error
    return path


def save_version(probe: Probe, folder: Path) -> Path:
    """As `save_probe`, as the next version where the folder has a probe of this name; that one's files are kept, as
    NAME.vN.json and .safetensors."""
    path = folder / f"{probe.name}.json"
    if path.is_file():
        before = load_probe(path).card.version
        for suffix in (".json", ".safetensors"):
            path.with_suffix(suffix).replace(folder / f"{probe.name}.v{before}{suffix}")
        probe.card = probe.card.model_copy(update={"version": max(probe.card.version, before + 1)})
    return save_probe(probe, folder)


def load_probe(name: str | Path) -> Probe:
    """Load a shipped probe by name, or any by the path of its card or safetensors file. Raises ProbeFileError."""
    path = _find(name)
    try:
        raw = json.loads(path.read_text(), parse_constant=_number, parse_float=_number, parse_int=_number)
        card = Card.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProbeFileError(f"probe card {path.name}: field {where}: {first['msg']}") from error
    except _NumberError as error:
        raise ProbeFileError(f"probe card {path.name}: the number {error} is not finite, or too large") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ProbeFileError(f"probe card {path.name}: not readable as JSON ({type(error).__name__})") from error
    weights = path.with_suffix(".safetensors")
    if not weights.is_file():
        raise ProbeFileError(f"probe {card.name}: {weights.name} is missing beside its card in {path.parent}")
    if sha256_file(weights) != card.safetensors_sha256:
        raise ProbeFileError(f"probe {card.name}: {weights.name} is not the file that its card was written for")
    try:
        tensors = load_file(weights)
        directions = [
            Direction(parse_site(d.site), tensors[f"vector.{i}"], tensors[f"centre.{i}"], d.sigma)
            for i, d in enumerate(card.directions)
        ]
        recipe = card.mitigation
        mitigators = [
            Direction(
                parse_site(part.site),
                tensors[_mitigation_key("vector", i)],
                tensors[_mitigation_key("centre", i)],
                part.sigma,
            )
            for i, part in enumerate(recipe.parts if recipe is not None else ())
        ]
        probe = Probe(card, directions, mitigators)
        probe._on_disk = (card, card_digest(raw))
        return probe
    except (KeyError, TypeError, ValueError, SafetensorError, ProbesError) as error:  # also tensors that NumPy has not
        raise ProbeFileError(f"probe {card.name}: {weights.name} does not hold what its card says ({error})") from error


def probe_files(name: str | Path) -> tuple[Path, Path]:
    """The card and the tensors of a shipped probe by name, or of any by path. Raises ProbeFileError."""
    path = _find(name)
    return path, path.with_suffix(".safetensors")


class _NumberError(Exception):
    """A number that no score can be compared with; its text begins with this."""


def _number(text: str) -> int | float:
    """A number of a card: NaN passes every comparison, and PostgreSQL holds none that is longer."""
    value = float(text) if len(text) <= 400 else math.inf
    if not math.isfinite(value) or abs(value) > _LARGEST:
        raise _NumberError(text[:20])
    return value if any(letter in text for letter in ".eE") else int(text)


def _mitigation_key(part: str, i: int) -> str:
    # The first has no number, as in cards that were written before recipes had several sites.
    return f"mitigation.{part}" if i == 0 else f"mitigation.{part}.{i}"


def shipped_probes() -> list[str]:
    """Names of the probes that come with awry, of each the latest version."""
    names = (p.name.removesuffix(".json") for p in _shipped().iterdir() if p.name.endswith(".json"))
    return sorted(name for name in names if not _OLD_VERSION.search(name))


def _shipped() -> Path:
    return Path(str(files("probes"))) / "shipped"


def _find(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix in (".json", ".safetensors"):
        if not path.with_suffix(".json").is_file():
            raise ProbeFileError(f"probe: {path.with_suffix('.json')} is not there")
        return path.with_suffix(".json")
    base, at, version = str(name).partition("@")
    shipped = _shipped() / f"{base}.json"
    if at and shipped.is_file() and str(json.loads(shipped.read_text())["version"]) != version:
        shipped = _shipped() / f"{base}.v{version}.json"
    if not shipped.is_file():
        raise ProbeFileError(
            f"probe: {str(name)!r} is not known; shipped are {', '.join(shipped_probes()) or 'none'}, "
            "or give the path of a card (NAME.json)"
        )
    return shipped
