"""The model, its adapter and the probes: all load, belong together, and score as their cards say. Takes as long as the
start of a worker."""

from __future__ import annotations

from collections.abc import Iterator

from awry.errors import AwryError
from monitor.doctor.finding import Finding, fault, ok
from monitor.settings import Settings


def model(settings: Settings) -> Iterator[Finding]:
    """Load all of it as a worker does, and replay the reference scores of the probes."""
    if settings.readings:
        yield from _cards(settings)
        return
    from monitor.service.bootstrap import open_model
    from monitor.service.engines import load_engine

    try:
        chat = open_model(settings)
    except AwryError as error:
        part = "adapter" if str(error).startswith(("adapter", "scale")) else "model"
        do = "awry models list and awry adapters list have what is here; correct model, adapter, scale or device"
        yield fault(part, str(error).removeprefix(f"{part}: "), do)
        return
    adapter = f" with {chat.active}" if chat.active else ""
    yield ok("model", f"{chat.name}{adapter} is loaded, {str(chat.dtype).removeprefix('torch.')} on {chat.device}")
    try:
        engine, probes = load_engine(settings, chat)
        engine.close()
    except AwryError as error:
        do = "name probes that were made for this model and adapter, or fit one with awry fit"
        yield fault("probes", str(error).removeprefix("probes: "), do)
        return
    names = ", ".join(f"{probe.name} (version {probe.card.version})" for probe in probes)
    yield ok("probes", f"{names}: the reference scores are those of the cards")


def _cards(settings: Settings) -> Iterator[Finding]:
    """Of readings: no model is loaded, and the engine's scores are its own."""
    from monitor.service.reading_run import cards_in_files, check_readings

    try:
        check_readings(settings)
        probes = cards_in_files(settings)
    except AwryError as error:
        yield fault("probes", str(error), "correct the setting, or take readings away (docs/readings.md)")
        return
    names = ", ".join(f"{probe.name} ({probe.digest})" for probe in probes)
    yield ok("probes", f"readings by {names or 'probes of the registry'}; no model is loaded")
