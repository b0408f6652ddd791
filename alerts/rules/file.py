"""Reads rules from a TOML file, or reports every error in it by line, rule and field.

Contract: `load_rules(path)` gives valid rules or a RulesError with one line for each error, `FILE:LINE: rate "burst":
window: ...`. A file replaces the built-in rules; kinds that it omits have no rules.

    [[threshold]]
    name = "threshold"
    severity = {warning = 0.0, error = 0.5, critical = 1.0}

    [[rate]]
    name = "burst"
    flagged = 5
    of = 50
    window = "10m"
    per = "conversation"

    [[monitor]]
    name = "silence"
    check = "no_traffic"
    window = "15m"

    [[exception]]
    matchers = ['tenant="red-team"']
    owner = "anna"
    reason = "agreed tests"
    until = 2026-12-31
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from alerts.errors import RulesError
from alerts.rules.exceptions import RuleException
from alerts.rules.model import MonitorRule, RateRule, Rules, ThresholdRule
from alerts.rules.toml_lines import Path as Place
from alerts.rules.toml_lines import line_of, locate

KINDS: dict[str, type[BaseModel]] = {"threshold": ThresholdRule, "rate": RateRule, "monitor": MonitorRule}
_TABLES: dict[str, type[BaseModel]] = {**KINDS, "exception": RuleException}


def load_rules(path: Path) -> Rules:
    """Raises RulesError."""
    try:
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise RulesError(f"rules_file: cannot read {path} ({type(error).__name__})") from None
    except UnicodeDecodeError as error:
        raise RulesError(f"{path}: not UTF-8 at byte {error.start}") from None
    return parse_rules(text, str(path))


def parse_rules(text: str, name: str) -> Rules:
    """The rules in `text`; `name` is the file's name in errors."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"{name}: not TOML: {error}") from None
    # The built-in rules apply only without a file.
    given = {"threshold": [], **document}
    lines = locate(text)
    errors: list[tuple[int, str]] = []
    rules = None
    try:
        rules = Rules.model_validate(given)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            at = tuple(detail["loc"])
            # An error of a whole rule begins with the name of its field.
            named = _message(detail).partition(": ")[0].split(".") if len(at) == 2 else []
            errors.append((line_of(lines, (*at, *named)) or 1, _explained(document, at, detail)))
    errors += [*_repeated_names(document, lines), *_repeated_ids(document, lines)]
    if rules is None or errors:
        raise RulesError("\n".join(f"{name}:{line}: {message}" for line, message in sorted(errors)))
    return rules


def _explained(document: dict[str, Any], at: Place, error: Any) -> str:
    kind = error["type"]
    field = ".".join(str(part) for part in at[2:] if part != "for_")
    where = f"{_called(document, at)}: " if len(at) > 1 else ""
    if kind == "extra_forbidden" and len(at) == 1:
        return f"{at[0]}: no such kind of rule; there are {', '.join(f'[[{known}]]' for known in _TABLES)}"
    if kind == "extra_forbidden":
        return f"{where}{field}: no such field; there are {', '.join(_fields(str(at[0])))}"
    message = _message(error)
    if kind == "tuple_type" and len(at) == 1:
        message = f"write each rule as [[{at[0]}]]"
        field = str(at[0])
    return f"{where}{field}: {message}" if field else f"{where}{message}"


def _message(error: Any) -> str:
    """Pydantic's message in the style of awry's own."""
    if error["type"] == "missing":
        return "is missing"
    return str(error["msg"]).removeprefix("Value error, ").replace("Input should", "must")


def _called(document: dict[str, Any], at: Place) -> str:
    try:
        name = document[str(at[0])][at[1]]["name"]
    except (KeyError, IndexError, TypeError):
        name = None
    return f'{at[0]} "{name}"' if isinstance(name, str) else f"{at[0]} number {int(at[1]) + 1}"


def _fields(kind: str) -> list[str]:
    return [field.alias or name for name, field in _TABLES[kind].model_fields.items()]


def _repeated_ids(document: dict[str, Any], lines: dict[Place, int]) -> Iterator[tuple[int, str]]:
    """Ids that two rules share: a SIEM would take them for one."""
    seen: set[str] = set()
    for kind in KINDS:
        written = document.get(kind)
        for i, rule in enumerate(written if isinstance(written, list) else []):
            id_ = rule.get("id") if isinstance(rule, dict) else None
            if isinstance(id_, str):
                if id_ in seen:
                    line = line_of(lines, (kind, i, "id")) or 1
                    yield line, f"{_called(document, (kind, i))}: id: another rule has it already"
                seen.add(id_)


def _repeated_names(document: dict[str, Any], lines: dict[Place, int]) -> Iterator[tuple[int, str]]:
    """Names that two rules share: alerts of one would count for the other."""
    named: list[tuple[int, str, str]] = []
    for kind in KINDS:
        written = document.get(kind)
        for i, rule in enumerate(written if isinstance(written, list) else []):
            name = rule.get("name", "threshold" if kind == "threshold" else None) if isinstance(rule, dict) else None
            if isinstance(name, str):
                named.append((line_of(lines, (kind, i, "name")) or 1, kind, name))
    seen = set()
    for line, kind, name in sorted(named):
        if name in seen:
            yield line, f'{kind} "{name}": name: another rule has it already'
        seen.add(name)
