"""Does one model's direction work in another? Ridge maps between every ordered pair of given models, with controls.

For donor s and receiver t (`docs/science.md` A.1 steps 8 and 9, of arXiv 2606.20225): a map is fitted on anchors,
texts that are no test question of anybody (`probes.studies.transfer.maps`); s's own direction is sent through it,
rescaled to the norm of t's own, and steers t on held-out questions. Beside it, through the same map or the same
procedure: random donor directions, maps of shuffled pairs; in the receiver alone: its own direction, random and
orthogonal directions of equal norm, its own direction of another block. R2 and the cosine to the receiver's own
direction are reported and certify nothing by themselves. Whether a direction *detects* is measured apart from whether
it steers (`probes.studies.transfer.detection`); each receiver gets a probe of the best mapped direction (`export`).

Anchors are declared: `neutral` (the text alone, plain weights, in both models) or `contrast` (each text under both
conditions of each model: such anchors hold the answer, so a map that works on them shows little).

What the source leaves open is ours: lambda by cross-validation, centred on both sides, the last block's output before
the final norm, every position (`TransferPlan`). At the last block nothing mixes positions any more, so an edit there is
a change of each token's logits (`docs/science.md` A.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from probes.capture.aggregation import parse_aggregation
from probes.capture.sites import Site
from probes.directions import Direction, cosine, orthogonal_to, random_like
from probes.errors import DataError, DirectionError
from probes.evaluation import rows_needed
from probes.hashing import sha256_arrays, sha256_json
from probes.model.load import ChatModel
from probes.progress import Progress, silent
from probes.result_cache import ResultCache
from probes.steer.contrast import NEUTRAL, ContrastOutcome, ContrastRunner, contrast_directions, read_condition
from probes.steer.steering import Intervention, Mode
from probes.studies.subjects import Subject
from probes.studies.transfer import maps
from probes.studies.transfer.detection import ReceiverActivations, compare, read_receiver
from probes.studies.transfer.export import write_probes
from probes.studies.transfer.plan import Measured, ModelReading, Pair, Receiver, TransferPlan
from probes.studies.transfer.report import summarise, write
from probes.studies.transfer.verdict import text_warning


def run_transfer(
    subjects: Sequence[Subject],
    anchors: Sequence[str],
    folder: Path,
    *,
    settings: TransferPlan | None = None,
    left_out: dict[str, str] | None = None,
    command: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """The whole study: RESULT.json, TRANSFER.md, two pictures and a probe a receiver in `folder`; returns the result.

    `anchors` are user messages, at least 4/3 of the widest model's width of them (`contrast` counts each twice), none
    of them a test message. `left_out` (name -> why) is reported. What was measured is cached in `folder/cache`, so that
    a study that was interrupted resumes; models are loaded one at a time.
    """
    measured = measure(subjects, anchors, folder / "cache", settings or TransferPlan(), progress)
    result = {"name": folder.name, "command": command, **summarise(measured, left_out or {})}
    result["exported"] = write_probes(measured, result["pairs"], folder, progress)
    result["probes"] = [probe["file"] for probe in result["exported"] if "file" in probe]
    result["verdict"]["warnings"] += text_warning(result["exported"])
    write(result, folder)
    return result


def measure(
    subjects: Sequence[Subject],
    anchors: Sequence[str],
    cache: Path,
    settings: TransferPlan,
    progress: Progress = silent,
) -> Measured:
    """All readings, receivers and ordered pairs. Raises DataError when the subjects or anchors do not make a study."""
    _check(subjects, anchors, settings)
    readings = [_reading(s, anchors, settings, cache, progress) for s in subjects]
    receivers, pairs = [], []
    for reading in readings:
        runner = _ReceiverRunner(reading, settings, cache)
        progress(f"{reading.subject.name}: its own direction and controls")
        receivers.append(runner.alone())
        for donor in readings:
            if donor is not reading:
                pairs.append(runner.pair(donor))
                done = pairs[-1]
                progress(f"{done.donor} -> {done.receiver}: R2 {done.map.r2:.2f}, cosine {done.cosine:.2f}")
    return Measured(settings, len(anchors), readings, receivers, pairs)


def _check(subjects: Sequence[Subject], anchors: Sequence[str], settings: TransferPlan) -> None:
    names, needed = [s.name for s in subjects], rows_needed(settings.interval)
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(f"subjects: {', '.join(names) or 'none'}; at least two are needed, each with its own name")
    for subject in subjects:
        shared = len(set(anchors) & set(subject.test))
        if shared:
            raise DataError(f"anchors: {shared} are test messages of {subject.name}; a map must not see them")
        if len(subject.test) < needed:
            raise DataError(
                f"{subject.name}: {len(subject.test)} test messages, but a rate within +-{settings.interval:g} needs "
                f"{needed}: give more, or ask for a wider interval"
            )
        for donor in subjects:
            seen = len(set(donor.fit) & set(subject.test))
            if seen:
                raise DataError(
                    f"{donor.name}: its direction would be fitted on {seen} test messages of {subject.name}; no "
                    "direction may see what another model is tested on"
                )


def _reading(
    subject: Subject, anchors: Sequence[str], settings: TransferPlan, cache: Path, progress: Progress
) -> ModelReading:
    chat = subject.load()
    last = chat.layout.n_blocks - 1
    site = Site("residual", round(settings.depth * last))
    far = Site("residual", 0 if site.layer > last / 2 else last)
    identity = asdict(chat.identity)
    results = ResultCache(
        cache,
        {
            "what": "what one model gives to maps",
            "model": identity,
            "site": str(site),
            "anchors": [settings.anchors, _hash(*anchors), *settings.token_positions],
            "contrast": _hash(asdict(subject.contrast)),
            "fit": _hash(*subject.fit),
        },
    )
    stored = results.get("reading")
    if stored is None:
        progress(f"{subject.name}: reading {len(anchors)} anchors and {len(subject.fit)} fit messages")
        stored = _read_all(chat, subject, anchors, settings, site, far)
        results.put("reading", stored)
    rows = np.array(stored["anchors"], dtype=np.float32)
    groups = np.tile(np.arange(len(anchors)), len(rows) // len(anchors))
    maps.check_anchors(rows, groups, subject.name)  # before anything is generated
    return ModelReading(
        subject,
        identity,
        rows,
        groups,
        _direction(site, stored["native"]),
        _direction(far, stored["elsewhere"]) if stored["elsewhere"] else None,
    )


def _read_all(
    chat: ChatModel, subject: Subject, anchors: Sequence[str], settings: TransferPlan, site: Site, far: Site
) -> dict[str, Any]:
    contrast = subject.contrast
    conditions = [NEUTRAL] if settings.anchors == "neutral" else [contrast.aligned, contrast.misaligned]
    rows = [
        read_condition(chat, condition, anchors, [site], parse_aggregation(position))[site]
        for condition in conditions
        for position in settings.token_positions
    ]
    plain: dict[str, Any] = {"anchors": np.concatenate(rows).tolist(), "elsewhere": None}
    for name, at in (("native", site), ("elsewhere", far)):
        try:
            direction = contrast_directions(chat, contrast, subject.fit, [at])[at]
        except DirectionError as error:
            if name == "native":
                raise DirectionError(f"{subject.name}: {error}") from None
            continue  # a block where both conditions look alike has no direction to be wrong with
        plain[name] = {
            "vector": direction.vector.tolist(),
            "centre": direction.centre.tolist(),
            "sigma": direction.sigma,
        }
    return plain


def _direction(site: Site, stored: dict[str, Any]) -> Direction:
    return Direction(site, np.array(stored["vector"]), np.array(stored["centre"]), stored["sigma"])


def _hash(*parts: Any) -> str:
    return sha256_json(parts)[:24]


class _ReceiverRunner:
    """One receiver, steered with whatever comes; generates only what is not in the result cache."""

    def __init__(self, reading: ModelReading, settings: TransferPlan, cache: Path) -> None:
        self._reading, self._settings = reading, settings
        self._chat: ChatModel | None = None
        self._runner: ContrastRunner | None = None
        self._activations: ReceiverActivations | None = None
        subject = reading.subject
        self._results = ResultCache(
            cache,
            {
                "what": "what one receiver does",
                "model": reading.identity,
                "contrast": _hash(asdict(subject.tested)),
                "test": _hash(*subject.test),
                "judge": getattr(subject.judge, "__qualname__", repr(subject.judge)),
                "tokens": subject.max_new_tokens,
                "good": "NLL, repetition, length",
            },
        )

    def alone(self) -> Receiver:
        native, settings = self._reading.native, self._settings
        elsewhere = self._reading.elsewhere
        moved = elsewhere and native.with_vector(elsewhere.vector * (native.norm / elsewhere.norm))
        return Receiver(
            aligned=self._once("aligned", lambda: self._ready().aligned),
            untouched=self._once("untouched", lambda: self._ready().run()),
            native=self._by_mode(native),
            random={m: [self._run(d, m) for d in self._draws(random_like)] for m in settings.modes},
            orthogonal=self._by_mode(orthogonal_to(native, settings.seed)),
            elsewhere=self._by_mode(moved) if moved else None,
            detection=compare(self._read(), native, random=list(self._draws(random_like))),
        )

    def pair(self, donor: ModelReading) -> Pair:
        own, settings = self._reading, self._settings
        if not np.array_equal(donor.groups, own.groups):
            raise DataError(
                f"anchors: {donor.subject.name} has {len(donor.groups)} and {own.subject.name} {len(own.groups)} rows"
            )
        seeds = range(settings.seed, settings.seed + settings.draws)
        ridge = maps.fit_map(donor.anchors, own.anchors, groups=own.groups, seed=settings.seed)
        mixed = [maps.shuffled_map(donor.anchors, own.anchors, groups=own.groups, seed=s) for s in seeds]
        direction = maps.mapped_direction(ridge, donor.native, own.native)
        noise = [maps.random_source(ridge, donor.native, own.native, s) for s in seeds]
        shuffled = [maps.mapped_direction(m, donor.native, own.native) for m in mixed]
        return Pair(
            donor=donor.subject.name,
            receiver=own.subject.name,
            map=ridge,
            direction=direction,
            shuffled_r2=[m.r2 for m in mixed],
            cosine=cosine(direction, own.native),
            cosine_null=maps.cosine_null(ridge, donor.native, own.native, seed=settings.seed),
            shuffled_cosines=[cosine(d, own.native) for d in shuffled],
            mapped=self._by_mode(direction),
            random_source={m: [self._run(d, m) for d in noise] for m in settings.modes},
            shuffled={m: [self._run(d, m) for d in shuffled] for m in settings.modes},
            detection=compare(self._read(), direction, random_source=noise, shuffled=shuffled),
        )

    def _draws(self, draw: Callable[[Direction, int], Direction]) -> Iterator[Direction]:
        start = self._settings.seed
        return (draw(self._reading.native, s) for s in range(start, start + self._settings.draws))

    def _by_mode(self, direction: Direction) -> dict[Mode, ContrastOutcome]:
        return {mode: self._run(direction, mode) for mode in self._settings.modes}

    def _run(self, direction: Direction, mode: Mode) -> ContrastOutcome:
        intervention = Intervention(direction, mode, self._settings.strength, self._settings.steered)
        digest = sha256_arrays(direction.vector, direction.centre)
        return self._once(f"{intervention} {digest}", lambda: self._ready().run(intervention))

    def _once(self, name: str, make: Callable[[], ContrastOutcome]) -> ContrastOutcome:
        """An outcome without its texts, generated when it is not in the result cache."""
        stored = self._results.get(name)
        if stored is None:
            new = make()
            stored = {**asdict(new), "texts": [], "behaviour": new.behaviour.tolist(), "good": new.good.tolist()}
            self._results.put(name, stored)
        return ContrastOutcome(
            (),
            np.array(stored["behaviour"], dtype=np.bool_),
            np.array(stored["good"], dtype=np.bool_),
            stored["nll"],
            stored["change"],
        )

    def _read(self) -> ReceiverActivations:
        """The receiver's activations in both conditions, read when they are not in the result cache."""
        if self._activations is None:
            subject, site = self._reading.subject, self._reading.native.site
            name = f"both conditions at {site}, fit {_hash(asdict(subject.contrast), *subject.fit)}"
            stored = self._results.get(name)
            if stored is None:
                stored = read_receiver(self._model(), subject, site).plain()
                self._results.put(name, stored)
            self._activations = ReceiverActivations.of(stored)
        return self._activations

    def _model(self) -> ChatModel:
        if self._chat is None:
            self._chat = self._reading.subject.load()
        return self._chat

    def _ready(self) -> ContrastRunner:
        if self._runner is None:
            subject = self._reading.subject
            self._runner = ContrastRunner(
                self._model(),
                subject.tested,
                subject.test,
                subject.judge,
                max_new_tokens=subject.max_new_tokens,
                batch_size=subject.batch_size,
            )
        return self._runner
