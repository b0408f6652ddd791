"""The command line as Markdown, from the tree that `awry` itself parses with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, get_args, get_origin

from typer.main import get_command

from monitor.cli.app import app
from monitor.cli.tree import DEPRECATED_COMMANDS, DEPRECATED_FLAGS


def cli_reference() -> list[str]:
    """A section for each group and command, then the deprecated names."""
    root: Any = get_command(app)
    lines = ["### awry", "", *_options(root)]
    for name, command in root.commands.items():
        lines += _section(f"awry {name}", command)
    return [*lines, *_deprecated()]


def _section(name: str, command: Any) -> Iterator[str]:
    yield from (f"### {name}", "", *_usage(name, command), *_text(command.help or ""))
    yield from _options(command)
    for sub, inner in getattr(command, "commands", {}).items():
        yield from _section(f"{name} {sub}", inner)


def _usage(name: str, command: Any) -> list[str]:
    if hasattr(command, "commands"):
        return []
    arguments = [_argument(parameter) for parameter in command.params if parameter.param_type_name == "argument"]
    required = [
        f"{parameter.opts[0]} {_value(parameter)}"
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.required
    ]
    return ["```text", " ".join([name, *required, "[OPTIONS]", *arguments]), "```", ""]


def _argument(parameter: Any) -> str:
    name = parameter.name.upper()
    many = "..." if parameter.nargs == -1 else ""
    return f"{name}{many}" if parameter.required else f"[{name}{many}]"


def _text(paragraphs: str) -> list[str]:
    return [line for part in paragraphs.split("\n\n") for line in (_escaped(part), "")]


def _options(command: Any) -> list[str]:
    own = [parameter for parameter in command.params if not parameter.opts[0].endswith("-completion")]
    if not own:
        return []
    rows = ["| option or argument | value | default | what it is |", "|---|---|---|---|"]
    return [*rows, *(_row(parameter) for parameter in own), ""]


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    else:
        names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    also = f" (also the environment's `{parameter.envvar}`)" if parameter.envvar else ""
    return f"| {names} | {_value(parameter)} | {_default(parameter)} | {_escaped(parameter.help)}{also} |"


def _value(parameter: Any) -> str:
    """What is written after the option: the choices, or the kind of value."""
    if getattr(parameter, "is_flag", False):
        return ""
    annotation = parameter.type_descriptor.annotation
    many = get_origin(annotation) is list
    inner = get_args(annotation)[0] if many else annotation
    choices = get_args(inner)
    kinds = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH", datetime: "DAY"}
    return (", ".join(choices) if choices else kinds[inner]) + ("..." if many else "")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return _escaped(parameter.show_default)
    if parameter.default in (None, "", ()) or parameter.default is False:
        return ""
    return "on" if parameter.default is True else f"`{parameter.default}`"


def _escaped(text: str) -> str:
    """Data in Markdown: what would be read as a table, a tag or emphasis is escaped."""
    for character in "|<*_":
        text = text.replace(character, f"\\{character}")
    return text


def _deprecated() -> list[str]:
    rows = [(f"awry {old}", f"awry {new}") for old, new in DEPRECATED_COMMANDS.items()] + [*DEPRECATED_FLAGS.items()]
    return [
        "### Deprecated names",
        "",
        "They still work, for one release, and print one line on standard error. A flag's old name holds for the",
        "commands that have the new one.",
        "",
        "| old | new |",
        "|---|---|",
        *(f"| `{old}` | `{new}` |" for old, new in rows),
    ]
