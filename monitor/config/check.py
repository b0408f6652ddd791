"""Every fault of the configuration, where awry itself would stop at the first.

Contract: `check` looks at the settings file, the environment, files of secrets and whatever the settings name (rules,
probes, certificates, folders). It connects to nothing, loads no model and changes nothing. A setting that is wrong
counts with its default in what is checked after it, and checks about it are left out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from monitor.config.named import CHECKS
from monitor.setting_sources import CONFIG_VARIABLE, IN_FOLDER, Fault, Gathered, faults_of
from monitor.settings import Settings, gathered, unknown_variable, unknown_variables


@dataclass(frozen=True)
class Checked:
    """`settings` are the valid ones; those in `wrong` are at their defaults."""

    given: Gathered
    settings: Settings
    wrong: frozenset[str]
    faults: list[Fault]


class _Given(Settings):
    """The same settings from values that are already gathered."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def check(file: Path | None = None, flags: dict[str, Any] | None = None) -> Checked:
    """The faults of what counts here; with `file`, of that settings file instead of the one that is found."""
    if file is not None and CONFIG_VARIABLE not in os.environ and _is_in_folder(file):
        file = None  # that file is read without anybody naming it, and may hold less
    given = gathered(flags or {}, file)
    faults = [unknown_variable(name) for name in unknown_variables()] + given.faults
    settings, wrong, found = _valid(given)
    faults += found
    wrong |= {fault.setting for fault in given.faults} | given.unread
    for names, named in CHECKS:
        if not wrong & set(names):
            faults += named(settings, given)
    return Checked(given, settings, frozenset(wrong), sorted(map(_explained, faults), key=_by_place))


def _by_place(fault: Fault) -> tuple[bool, str, int]:
    return fault.place.kind == "file", fault.place.name, fault.place.line or 0


def _explained(fault: Fault) -> Fault:
    """With a fix: what the setting is for, where its fault says by itself what may be written."""
    field = Settings.model_fields.get(_top(fault))
    return fault if fault.fix or field is None else replace(fault, fix=f"{_top(fault)}: {field.description}")


def _is_in_folder(file: Path) -> bool:
    return file.is_file() and IN_FOLDER.is_file() and file.samefile(IN_FOLDER)


def _valid(given: Gathered) -> tuple[Settings, set[str], list[Fault]]:
    """The settings without those that are wrong, the names of these, and why. Of a list only wrong elements go."""
    values = given.values
    before: dict[str, Any] = {"": None}
    wrong: set[str] = set()
    faults: list[Fault] = []
    first, right = True, set[str]()
    while values != before:
        try:
            return _Given(**values), wrong, faults
        except ValidationError as error:
            found = faults_of(error, given, Settings.model_fields)
            # A setting that was right before is wrong now because another one counts with its default.
            faults += [f for f in found if _top(f) not in wrong and (first or _top(f) not in right)]
            locs = [detail["loc"] for detail in error.errors(include_input=False)]
            if first:
                right, first = set(values) - {str(loc[0]) for loc in locs if loc}, False
        elements = {(loc[0], loc[1]) for loc in locs if len(loc) > 1 and isinstance(loc[1], int)}
        names = {str(loc[0]) for loc in locs if tuple(loc[:2]) not in elements}
        wrong |= names
        partners = _partners(values, names - set(values)) if names - set(values) else set()
        before = values
        values = {
            name: [each for i, each in enumerate(value) if (name, i) not in elements]
            if isinstance(value, list)
            else value
            for name, value in values.items()
            if name not in names | partners
        }
    return _Given(), set(Settings.model_fields), faults


def _partners(values: dict[str, Any], culprits: set[str]) -> set[str]:
    """Given settings without which settings that are not given are right: judge_url, where judge_model is missing."""
    found = set()
    for name in values:
        try:
            _Given(**{other: value for other, value in values.items() if other != name})
        except ValidationError as error:
            still = {str(detail["loc"][0]) for detail in error.errors(include_input=False) if detail["loc"]}
        else:
            still = set()
        if culprits - still:
            found.add(name)
    return found


def _top(fault: Fault) -> str:
    return fault.setting.partition(".")[0]
