"""`awry run --readings`: a worker without a model, whose messages an engine has read itself.

Contract: `check_readings` is for before anything is opened, and raises SettingsError for settings that need a model or
a text. `load_cards` gives the probes whose cards the worker scores by, of files or of the registry, for whatever model
they were made: engines say by the digest which card they read. `building_worker` is that of `monitor.service.bootstrap`
around a `ReadingScorer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from monitor.errors import SettingsError
from monitor.service import bootstrap
from monitor.service.registered import names_registry, with_registered
from monitor.settings import Settings
from probes.progress import Progress

if TYPE_CHECKING:
    from monitor.service.worker import OnBatch, Worker
    from monitor.stream.record import Source
    from probes.card import Probe

# (setting, the value that it is left at, why)
_NEED_MORE: tuple[tuple[str, object, str], ...] = (
    ("mitigate", "off", "there is no model here to generate with; the engine steers"),
    ("judge_url", None, "readings hold no text to ask a judge about"),
    ("judge_command", (), "readings hold no text to ask a judge about"),
    ("sample_after_seconds", None, "readings are scored already, all of them"),
    ("mapping", {}, "readings have a format of their own"),
    ("format", "auto", "readings have a format of their own"),
    ("adapter", None, "no model is loaded; the cards are named by probes"),
    ("engine", "transformers", "no model is loaded; the engine is the one that publishes the readings"),
)
# What the model is called where no message names one.
_MODEL = "readings"


def check_readings(settings: Settings, *, live: bool = True) -> None:
    """See the module."""
    if not live:
        raise SettingsError("readings: there is no text to score again; awry replay reads a source of messages")
    if settings.source == "spool":
        raise SettingsError("source: readings come from kafka:TOPIC or from files, not from the spool of awry ingest")
    if not settings.probes:
        raise SettingsError(
            "probes: name the cards that the engine reads by (--probe, or registry:live); without a model there is "
            "nothing to choose shipped ones for"
        )
    for name, plain, why in _NEED_MORE:
        if getattr(settings, name) != plain:
            raise SettingsError(f"{name}: cannot be had with readings: {why}; leave one of them out")


def cards_in_files(settings: Settings) -> list[Probe]:
    """The probes that are named, without those of the registry, which is in the database."""
    from probes.card import load_probe

    return [load_probe(name) for name in settings.probes if not names_registry(name)]


def load_cards(settings: Settings, engine: Engine, progress: Progress) -> tuple[Settings, list[Probe]]:
    """The settings with files in the place of names of the registry, and the probes."""
    settings = with_registered(settings.model_copy(update={"model": _MODEL}), engine, None)
    probes = cards_in_files(settings)
    names = [probe.name for probe in probes]
    if len(set(names)) != len(names):
        raise SettingsError(f"probes: two of {', '.join(names)} share a name")
    unknown = set(settings.shadow) - set(names)
    if unknown:
        raise SettingsError(f"shadow: {', '.join(sorted(unknown))} not among the loaded probes {', '.join(names)}")
    progress("readings of " + ", ".join(f"{probe.name} ({probe.digest})" for probe in probes))
    return settings, probes


@contextmanager
def building_worker(
    settings: Settings, engine: Engine, probes: list[Probe], source: Source, on_batch: OnBatch
) -> Iterator[Worker]:
    """The worker with its outputs open; the caller closes the source."""
    from monitor.service.reading_scores import ReadingScorer
    from monitor.service.worker import Worker
    from monitor.stream.wiring import opened_outputs

    bootstrap.register(engine, probes, settings)
    policy = bootstrap.policy_of(settings, probes, None)
    with opened_outputs(settings) as outputs:
        yield Worker(source, ReadingScorer(probes), engine, policy, outputs=outputs, on_batch=on_batch)
