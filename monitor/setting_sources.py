"""Where the values of settings are written: flags, the environment, files of secrets, the settings file.

Contract: `gather` reads all of them, raises nothing, and gives the values that count, the place of each, and a fault
for whatever cannot be read. Flags win, then the environment, then files of secrets, then the settings file; tables
are merged key by key. A fault holds no value: values may be secrets.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource

from alerts.rules.toml_lines import Path as TomlPath
from alerts.rules.toml_lines import line_of, locate
from monitor.setting_trust import untrusted

CONFIG_VARIABLE = "AWRY_CONFIG"
IN_FOLDER = Path("awry.toml")

Kind = Literal["default", "flag", "environment", "secret file", "file"]
Loc = Sequence[str | int]


@dataclass(frozen=True)
class Place:
    """Where a value is written: `name` is the variable, the flag or the file; `line` counts from 1."""

    kind: Kind
    name: str = ""
    line: int | None = None

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.name}:{self.line}"
        return self.name or self.kind


@dataclass(frozen=True)
class Fault:
    """What is wrong with a setting, or with a place as a whole (`setting` is empty then), and what mends it."""

    setting: str
    place: Place
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.setting} ({self.place}): {self.what}" if self.setting else f"{self.place}: {self.what}"

    @property
    def with_fix(self) -> str:
        """On one line."""
        return f"{self}; {self.fix}" if self.fix else str(self)


@dataclass
class Gathered:
    """`layers` are (kind, values), the one that wins first; `unread` are settings whose value could not be read."""

    layers: list[tuple[Kind, dict[str, Any]]]
    faults: list[Fault]
    file: Path | None = None
    lines: dict[TomlPath, int] = field(default_factory=dict)
    secret_files: dict[str, str] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)

    @property
    def values(self) -> dict[str, Any]:
        """What counts, tables merged."""
        merged: dict[str, Any] = {}
        for _, values in reversed(self.layers):
            merged = _merged(merged, values)
        return merged

    def places(self, name: str) -> list[Place]:
        """All places that a setting's value comes from: several where tables are merged."""
        found = [(kind, values[name]) for kind, values in self.layers if name in values]
        tables = [kind for kind, value in found if isinstance(value, dict)]
        kinds = tables if len(tables) == len(found) else [kind for kind, _ in found[:1]]
        return [self._place(kind, (name,)) for kind in kinds] or [Place("default")]

    def place(self, loc: Loc) -> Place:
        """Where the value at `loc` (setting, then keys and indices in it) is written."""
        name, below = str(loc[0]), loc[1:2]
        given = [(kind, values[name]) for kind, values in self.layers if name in values]
        for kind, value in given:
            if below and isinstance(value, dict) and below[0] not in value:
                continue
            return self._place(kind, loc)
        return self._place(given[0][0], loc) if given else Place("default")

    def _place(self, kind: Kind, loc: Loc) -> Place:
        name = str(loc[0])
        if kind == "environment":
            return Place(kind, variable(name))
        if kind == "secret file":
            return Place(kind, self.secret_files[name])
        if kind == "file":
            return Place(kind, str(self.file), line_of(self.lines, loc))
        return Place(kind)


def gather(
    fields: type[BaseSettings],
    secrets: Iterable[str],
    flags: Mapping[str, Any] | None = None,
    file: Path | None = None,
) -> Gathered:
    """All that is given for the settings of the class `fields`; `file` stands for the one that AWRY_CONFIG names."""
    found = Gathered([("flag", dict(flags or {}))], [])
    found.layers.append(("environment", _environment(fields, found.faults)))
    found.layers.append(("secret file", _secret_files(secrets, found)))
    in_file = _settings_file(fields, file, found)
    if in_file is None:  # whatever it was to set
        found.unread |= set(fields.model_fields) - set(found.values)
    found.layers.append(("file", in_file or {}))
    return found


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"AWRY_{name.upper()}"


def file_variable(name: str) -> str:
    """The environment variable that names the file of a secret setting."""
    return f"{variable(name)}_FILE"


def faults_of(error: ValidationError, given: Gathered, known: Iterable[str]) -> list[Fault]:
    """Each error of a validation with its place; `known` are the names of all settings."""
    details = error.errors(include_url=False, include_input=False)
    return [_fault(detail, given, known) for detail in details if not _only_follows(detail, details)]


def _only_follows(detail: Any, details: Sequence[Any]) -> bool:
    """Whether a list is too short because its elements are wrong."""
    loc = detail["loc"]
    return detail["type"] == "too_short" and any(
        other["loc"][: len(loc)] == loc and len(other["loc"]) > len(loc) for other in details
    )


def no_such_setting(name: str, known: Iterable[str], place: Place) -> Fault:
    """A name that is none, with the nearest one that is."""
    near = difflib.get_close_matches(name, list(known), 1, 0.75)
    meant = f"did you mean {near[0]}? " if near else ""
    setting = "" if str(place) == name else name
    return Fault(setting, place, "no such setting", f"{meant}see awry config list")


def _fault(error: Any, given: Gathered, known: Iterable[str]) -> Fault:
    loc = error["loc"] or ("settings",)
    name = ".".join(map(str, loc))
    place = given.place(loc)
    if error["type"] == "extra_forbidden" and len(loc) == 1:
        return no_such_setting(name, known, place)
    what = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    return Fault(name, place, what)


def _environment(fields: type[BaseSettings], faults: list[Fault]) -> dict[str, Any]:
    source = EnvSettingsSource(fields)
    values = {}
    for name, info in fields.model_fields.items():
        written, key, is_complex = source.get_field_value(info, name)
        try:
            value = source.prepare_field_value(name, info, written, is_complex)
        except ValueError:
            place = Place("environment", variable(name))
            what = "is not JSON (lists and tables are written as JSON)"
            faults.append(Fault(name, place, what, f'write JSON, for example {variable(name)}=\'["a", "b"]\''))
            continue
        if value is not None:
            values[key] = value
    return values


def _secret_files(secrets: Iterable[str], found: Gathered) -> dict[str, Any]:
    """AWRY_<NAME>_FILE names a file that holds a secret setting, as container platforms mount them."""
    values: dict[str, Any] = {}
    for name in secrets:
        path = os.environ.get(file_variable(name))
        if path is None:
            continue
        place = Place("environment", file_variable(name))
        found.unread.add(name)
        fix = f"make the file readable for this user, or take {file_variable(name)} away"
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
            values[name] = json.loads(text) if name == "destinations" else text
            found.secret_files[name] = path
            found.unread.discard(name)
        except json.JSONDecodeError as error:
            what = f"{path} is not JSON (line {error.lineno}, column {error.colno})"
            found.faults.append(Fault("", place, what, "write a JSON list of tables, one for each destination"))
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a zero in the path
            found.faults.append(Fault("", place, f"cannot read {path} ({type(error).__name__})", fix))
    return values


def _settings_file(fields: type[BaseSettings], given: Path | None, found: Gathered) -> dict[str, Any] | None:
    """What the settings file holds: `given`, or the one that AWRY_CONFIG names, or awry.toml of the current folder;
    None where that cannot be read. What such a file may not set is left out."""
    variable_path = os.environ.get(CONFIG_VARIABLE)
    named = given is not None or variable_path is not None
    path = given or Path(variable_path or IN_FOLDER).expanduser()
    if not os.path.lexists(path):
        if named:
            place = Place("file", str(path)) if given is not None else Place("environment", CONFIG_VARIABLE)
            what = "there is no such file" if given is not None else f"{path} does not exist"
            found.faults.append(Fault("", place, what, f"write the file, or take {CONFIG_VARIABLE} away"))
        return None if named else {}
    found.file = path
    try:
        if not named and not stat.S_ISREG(path.stat().st_mode):
            what = "is no file, and may be meant for the settings"
            found.faults.append(Fault("", Place("file", str(path)), what, f"write a file, or take {path} away"))
            return None
        # One that is named may be a pipe.
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
        document = tomllib.loads(text)
    except OSError as error:
        what = f"cannot be read ({type(error).__name__})"
        found.faults.append(Fault("", Place("file", str(path)), what, "make it readable for this user"))
        return None
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {error.start}"
        found.faults.append(Fault("", Place("file", str(path)), what, "save it as UTF-8"))
        return None
    except tomllib.TOMLDecodeError as error:
        found.faults.append(_not_toml(path, text, error))
        return None
    # As everywhere in settings, a name's case does not matter.
    found.lines = {(str(at[0]).lower(), *at[1:]): line for at, line in locate(text).items()}
    values = InitSettingsSource(fields, document)()
    if not named:
        for loc, what, fix in list(untrusted(values, path.resolve().parent)):
            found.faults.append(Fault(str(loc[0]), Place("file", str(path), line_of(found.lines, loc)), what, fix))
            values = {name: value for name, value in values.items() if name != loc[0]}
    return values


def _not_toml(path: Path, text: str, error: tomllib.TOMLDecodeError) -> Fault:
    at = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
    line = int(at[1]) if at else len(text.splitlines()) or 1
    what = re.sub(r" \(at .*\)$", "", str(error))
    where = f" at column {at[2]}" if at else " at the end"
    fix = "correct the line: name = value, where text stands in quotes and lists in brackets"
    return Fault("", Place("file", str(path), line), f"not TOML: {what}{where}", fix)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        before = merged.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = _merged(before, value) if both and isinstance(before, dict) else value
    return merged
