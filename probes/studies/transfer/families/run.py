"""Do directions of one real family work in another, through a ridge map? Detection and steering, in every direction.

For donor s and receiver t (`docs/science.md` A.1 steps 8 and 9, of arXiv 2606.20225; maps are those of
`probes.studies.transfer.maps`) and each behaviour, each model's own direction is fitted on its own activations. It is
*read* at the block where it tells the select conversations apart best, and *steered* at the block and strength that
moves the select requests farthest without breaking the text; both are chosen in each model by itself. A map goes from
the donor's block to the receiver's, fitted on anchors: `neutral` (everyday messages) or `contrast` (with the fit
conversations of all behaviours among them, unlabelled). No test text is an anchor.

Detection is the AUROC on the receiver's test conversations; steering is how likely a refusing opening becomes
(`steer`). Beside the receiver's own and the mapped direction: random donor directions through the same map, and random
directions in the receiver, at least 20 of each and all as large as the own one. A random direction's opposite is as
random, so that the effect of one draw, reversed, is a draw for the other aim; it is not measured twice.

Beside what is chosen, detection is given from every block of the plan to the block of the same depth, where nothing is
chosen (`DepthFigures`), so that a result that hangs on the choice of blocks can be told.

Everything that is read or measured is kept in `folder/cache`, so that a study that was interrupted goes on; models are
loaded one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from probes.capture.sites import Site
from probes.directions import Direction, Floats, cosine, random_like
from probes.errors import DataError
from probes.heads.choice_scoring import PLAIN
from probes.progress import Progress, silent
from probes.studies.transfer import maps
from probes.studies.transfer.families.plan import (
    AIMS,
    ANCHORS,
    Aim,
    Anchors,
    Behaviour,
    Family,
    FamilyPlan,
    FamilyTexts,
)
from probes.studies.transfer.families.reading import FamilyReading, anchor_groups, read_family
from probes.studies.transfer.families.steer import FamilySteering, Steered, SteeringPlace, trial


@dataclass(frozen=True)
class FamilyMap:
    """A map between two sites, what it makes of the donor's own direction, and of random donor directions."""

    ridge: maps.RidgeMap
    mapped: Direction
    cosine: float
    cosine_null: Floats
    random: tuple[Direction, ...]


@dataclass(frozen=True)
class OwnFigures:
    """A receiver's own direction of one behaviour, and random directions of its size there.

    `scores` are projections of the test conversations, first those that show the behaviour.
    """

    read_at: Site
    select_auroc: float
    scores: Floats
    random_scores: tuple[Floats, ...]
    place: SteeringPlace
    plain: Steered
    steered: dict[Aim, Steered]
    random: tuple[Steered, ...]


@dataclass(frozen=True)
class MappedFigures:
    """The same of a donor's direction through one map; both maps are fitted on the same anchors."""

    anchors: Anchors
    reading: FamilyMap
    scores: Floats
    random_scores: tuple[Floats, ...]
    steering: FamilyMap
    steered: dict[Aim, Steered]
    random: tuple[Steered, ...]


@dataclass(frozen=True)
class DepthFigures:
    """Detection between blocks of one depth: projections of the test conversations on the own and mapped direction."""

    donor: str
    receiver: str
    behaviour: str
    anchors: Anchors
    sites: tuple[Site, Site]
    r2: float
    own: Floats
    mapped: Floats


@dataclass(frozen=True)
class MeasuredFamilies:
    """Everything that was measured; `own` by (receiver, behaviour), `mapped` by (donor, receiver, behaviour)."""

    plan: FamilyPlan
    texts: FamilyTexts
    readings: list[FamilyReading]
    own: dict[tuple[str, str], OwnFigures]
    mapped: dict[tuple[str, str, str], list[MappedFigures]]
    by_depth: list[DepthFigures]
    warnings: list[str]


def measure_families(
    families: Sequence[Family],
    texts: FamilyTexts,
    cache: Path,
    plan: FamilyPlan,
    progress: Progress = silent,
) -> MeasuredFamilies:
    """Reads, chooses and measures. DataError when the families or their anchors do not make a study."""
    names = [family.name for family in families]
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(f"families: {', '.join(names) or 'none'}; at least two are needed, each with its own name")
    readings = []
    for family in families:
        reading = read_family(family, family.load(), texts, plan, cache, progress)
        for site in reading.sites:  # before anything is steered
            maps.check_anchors(reading.anchors("neutral", (), site), anchor_groups("neutral", texts), family.name)
        readings.append(reading)
    places = _places(readings, texts, plan, cache, progress)
    measured = MeasuredFamilies(plan, texts, readings, {}, {}, [], [])
    for receiver in readings:
        steering = FamilySteering(receiver, receiver.family.load(), texts, plan, cache, progress)
        for behaviour in texts.behaviours:
            _receive(measured, steering, receiver, behaviour, places)
        progress(f"{receiver.family.name}: maps between blocks of one depth")
        measured.by_depth.extend(_by_depth(measured, receiver))
        measured.warnings.extend(f"{receiver.family.name}: {text}" for text in steering.warnings)
    return measured


def _places(
    readings: Sequence[FamilyReading], texts: FamilyTexts, plan: FamilyPlan, cache: Path, progress: Progress
) -> dict[tuple[str, str], SteeringPlace]:
    places = {}
    for reading in readings:
        steering = FamilySteering(reading, reading.family.load(), texts, plan, cache, progress)
        for behaviour in texts.behaviours:
            found = steering.choose(behaviour)
            places[reading.family.name, behaviour.name] = found
            progress(
                f"{reading.family.name}: {behaviour.name}: steered at {found.direction.site}, {found.alpha:g} sigma"
            )
    return places


def best_reading(reading: FamilyReading, behaviour: Behaviour) -> tuple[Direction, float]:
    """The own direction at the site of the highest AUROC on the select conversations, the deepest of equals."""
    found = [
        (reading.auroc(behaviour, "select", d), d) for d in (reading.direction(behaviour, s) for s in reading.sites)
    ]
    value, direction = max(found, key=lambda one: (round(one[0], 3), one[1].site.layer))
    return direction, value


def _receive(
    measured: MeasuredFamilies,
    steering: FamilySteering,
    receiver: FamilyReading,
    behaviour: Behaviour,
    places: dict[tuple[str, str], SteeringPlace],
) -> None:
    """Everything of one receiver and behaviour, in one pass over the test requests."""
    plan, name = measured.plan, receiver.family.name
    seeds = range(plan.seed, plan.seed + plan.draws)
    place = places[name, behaviour.name]
    read, select_auroc = best_reading(receiver, behaviour)
    rows = receiver.rows(behaviour, "test", read.site)
    arriving: list[tuple[str, Anchors, FamilyMap, FamilyMap]] = []
    for donor in measured.readings:
        if donor is receiver:
            continue
        gives, _ = best_reading(donor, behaviour)
        steers = places[donor.family.name, behaviour.name].direction
        for kind in ANCHORS:
            reading_map, steering_map = (
                _map(measured, donor, receiver, kind, own, native)
                for own, native in ((gives, read), (steers, place.direction))
            )
            arriving.append((donor.family.name, kind, reading_map, steering_map))
    own = {aim: trial(place.direction, place.alpha, aim) for aim in AIMS}
    noise = [trial(random_like(place.direction, s), place.alpha) for s in seeds]
    mapped = [{aim: trial(m.mapped, place.alpha, aim) for aim in AIMS} for *_, m in arriving]
    through = [[trial(d, place.alpha) for d in m.random] for *_, m in arriving]
    acting = [*own.values(), *(one for both in mapped for one in both.values())]
    found = steering.measure([*acting, *noise, *(one for drawn in through for one in drawn)])
    found = steering.with_everyday(found, acting)
    measured.own[name, behaviour.name] = OwnFigures(
        read.site,
        select_auroc,
        read.along(rows),
        tuple(random_like(read, s).along(rows) for s in seeds),
        place,
        found[PLAIN.name],
        {aim: found[one.name] for aim, one in own.items()},
        tuple(found[one.name] for one in noise),
    )
    for (donor_name, kind, reading_map, steering_map), both, drawn in zip(arriving, mapped, through, strict=True):
        measured.mapped.setdefault((donor_name, name, behaviour.name), []).append(
            MappedFigures(
                kind,
                reading_map,
                reading_map.mapped.along(rows),
                tuple(d.along(rows) for d in reading_map.random),
                steering_map,
                {aim: found[one.name] for aim, one in both.items()},
                tuple(found[one.name] for one in drawn),
            )
        )


def _by_depth(measured: MeasuredFamilies, receiver: FamilyReading) -> Iterator[DepthFigures]:
    texts = measured.texts
    for donor in measured.readings:
        for kind, (here, there) in product(ANCHORS, zip(donor.sites, receiver.sites, strict=True)):
            if donor is receiver:
                continue
            ridge = maps.fit_map(
                donor.anchors(kind, texts.behaviours, here),
                receiver.anchors(kind, texts.behaviours, there),
                groups=anchor_groups(kind, texts),
                seed=measured.plan.seed,
            )
            for behaviour in texts.behaviours:
                own = receiver.direction(behaviour, there)
                mapped = maps.mapped_direction(ridge, donor.direction(behaviour, here), own)
                rows = receiver.rows(behaviour, "test", there)
                names = donor.family.name, receiver.family.name, behaviour.name
                yield DepthFigures(*names, kind, (here, there), ridge.r2, own.along(rows), mapped.along(rows))


def _map(
    measured: MeasuredFamilies,
    donor: FamilyReading,
    receiver: FamilyReading,
    kind: Anchors,
    own: Direction,
    native: Direction,
) -> FamilyMap:
    texts, plan = measured.texts, measured.plan
    source = donor.anchors(kind, texts.behaviours, own.site)
    target = receiver.anchors(kind, texts.behaviours, native.site)
    ridge = maps.fit_map(source, target, groups=anchor_groups(kind, texts), seed=plan.seed)
    mapped = maps.mapped_direction(ridge, own, native)
    return FamilyMap(
        ridge,
        mapped,
        cosine(mapped, native),
        maps.cosine_null(ridge, own, native, seed=plan.seed),
        tuple(maps.random_source(ridge, own, native, s) for s in range(plan.seed, plan.seed + plan.draws)),
    )
