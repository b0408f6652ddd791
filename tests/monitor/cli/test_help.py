"""The command line answers without the heavy libraries, and every command says what it does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from monitor.cli.app import app, register

HEAVY = ("torch", "transformers", "sqlalchemy", "sklearn", "kafka")

_PROBE = """
import sys
sys.argv = ["awry", *{arguments!r}]
from monitor.cli.app import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("LOADED:" + ",".join(m for m in {heavy!r} if m in sys.modules))
"""


def loaded(arguments: list[str], extra: str = "") -> set[str]:
    """Which heavy libraries a process has imported after `awry ARGUMENTS`."""
    code = extra + _PROBE.format(arguments=arguments, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED:")[2].strip().split(",")) - {""}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["fit", "--help"], ["db", "--help"], ["alerts", "--help"], ["rules", "--help"]],
)
def test_help_needs_nothing_heavy(arguments: list[str]) -> None:
    assert loaded(arguments) == set()


def test_the_check_sees_a_heavy_import() -> None:
    assert loaded(["--help"], extra="import sqlalchemy\n") == {"sqlalchemy"}


def commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for sub, command in group.commands.items():
        yield f"{name} {sub}", command
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {sub}")


def all_commands() -> dict[str, Any]:
    register()
    return dict(commands(typer.main.get_command(app), "awry"))


def test_every_command_and_option_has_help() -> None:
    found = all_commands()
    assert {"awry run", "awry send", "awry serve", "awry kafka", "awry db retain", "awry fit"} <= set(found)
    silent = [name for name, command in found.items() if not (command.help or "").strip()]
    for name, command in found.items():
        silent += [f"{name} {p.name}" for p in command.params if not (getattr(p, "help", "") or "").strip()]
    assert silent == []


def test_the_console_script_prints_its_commands() -> None:
    script = Path(sys.executable).with_name("awry")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    for name in ("run", "send", "serve", "kafka", "replay", "show", "stack", "demo", "fit", "alerts", "rules", "db"):
        assert f" {name} " in done.stdout
