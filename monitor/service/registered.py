"""Probes of the registry in the database, as files that a process loads.

Contract: the setting `probes` may name `registry:live` and `registry:shadow` (all of that stage that were made for the
loaded model), and `registry:NAME`, `registry:NAME@VERSION` or `registry:DIGEST`. `with_registered` gives the settings
with paths of files in their place; a probe in shadow there is in `shadow` as well. Files are written to the state
folder under their digest, and read as any others: a file that is not what was registered is refused by its digest.

A process asks once, at its start: a promotion takes effect when workers are restarted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_args

from sqlalchemy import Engine

from awry.whole_file import whole_file
from monitor.errors import SettingsError
from monitor.settings import Settings
from probes.card import Probe, load_probe
from probes.errors import ProbeMismatchError
from probes.identity import check_identity
from probes.model.load import ChatModel
from storage import probe_registry
from storage.probe_registry import Entry, RegistryError, Stage

PREFIX = "registry:"
FOLDER = "registry"
# What is a word here cannot be the name of a probe.
LOADED: tuple[Stage, ...] = ("live", "shadow")
RESERVED = frozenset(get_args(Stage))


def names_registry(name: str) -> bool:
    """Whether a probe's name is one of the registry's."""
    return name.startswith(PREFIX)


def with_registered(settings: Settings, engine: Engine, chat: ChatModel | None) -> Settings:
    """The settings as they are where they name no probe of the registry. SettingsError where a stage has none for this
    model (without one: for any); RegistryError for a name that is not there."""
    if not any(map(names_registry, settings.probes)):
        return settings
    probes: list[str] = []
    shadow = list(settings.shadow)
    for name in settings.probes:
        if not names_registry(name):
            probes.append(name)
            continue
        for entry, path in _of(engine, settings.state_dir, name.removeprefix(PREFIX), chat):
            probes.append(str(path))
            if entry.stage == "shadow" and entry.name not in shadow:
                shadow.append(entry.name)
    return settings.model_copy(update={"probes": tuple(dict.fromkeys(probes)), "shadow": tuple(shadow)})


def fetch(engine: Engine, state_dir: Path, named: str) -> tuple[Entry, Path]:
    """The entry of NAME, NAME@VERSION or a digest, and the path of its card, once it is in the state folder."""
    with engine.connect() as connection:
        entry = probe_registry.find(connection, named)
        card, tensors = probe_registry.files(connection, entry.digest)
    folder = state_dir / FOLDER / entry.digest
    path = folder / f"{entry.name}.json"
    write(path.with_suffix(".safetensors"), tensors)
    write(path, card)
    if load_probe(path).digest != entry.digest:
        raise RegistryError(f"probe: the registry's files of {entry} are not what was added; add the probe again")
    return entry, path


def fetch_one(engine: Engine, state_dir: Path, named: str) -> tuple[Entry, Path]:
    """`fetch`, or of a stage the one probe in it. Raises SettingsError where it has none, or several."""
    if named not in LOADED:
        return fetch(engine, state_dir, named)
    with engine.connect() as connection:
        found = probe_registry.in_stage(connection, named)
    if len(found) != 1:
        which = f"{len(found)} probes are {named}: {', '.join(map(str, found))}" if found else f"no probe is {named}"
        raise SettingsError(f"probe: {which}; name one, registry:NAME@VERSION")
    return fetch(engine, state_dir, found[0].digest)


def write(path: Path, content: bytes) -> None:
    """At once or not at all; a file that has this content stays."""
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(content)


def cards_of(engine: Engine, state_dir: Path, named: str) -> Iterator[Probe]:
    """The probes of a name, or of a stage whichever model they were made for."""
    if named not in LOADED:
        yield load_probe(fetch(engine, state_dir, named)[1])
        return
    with engine.connect() as connection:
        found = probe_registry.in_stage(connection, named)
    for entry in found:
        yield load_probe(fetch(engine, state_dir, entry.digest)[1])


def _of(engine: Engine, state_dir: Path, named: str, chat: ChatModel | None) -> list[tuple[Entry, Path]]:
    if named not in LOADED:
        return [fetch(engine, state_dir, named)]
    with engine.connect() as connection:
        found = probe_registry.in_stage(connection, named)
    fitting = []
    for entry in found:
        fetched = fetch(engine, state_dir, entry.digest)
        with suppress(ProbeMismatchError):
            if chat is not None:
                check_identity(load_probe(fetched[1]).card, chat)
            fitting.append(fetched)
    if not fitting:
        raise SettingsError(
            f"probes: no probe of the registry {_missing(named, chat)}; awry probes list shows what is registered"
        )
    return fitting


def _missing(stage: str, chat: ChatModel | None) -> str:
    return f"that is {stage} was made for {chat.name} with this adapter" if chat is not None else f"is {stage}"
