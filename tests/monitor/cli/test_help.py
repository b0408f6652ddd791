"""The command line answers without the heavy libraries, and every command says what it does."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict

import pytest

from tests.support import ROOT
from tests.support.cli import AWRY, all_commands, loaded, type_of


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["fit", "--help"], ["db", "--help"], ["alerts", "--help"], ["rules", "--help"]],
)
def test_help_needs_nothing_heavy(arguments: list[str]) -> None:
    assert loaded(arguments) == set()


def test_the_check_sees_a_heavy_import() -> None:
    assert loaded(["--help"], extra="import sqlalchemy\n") == {"sqlalchemy"}


def test_every_command_and_option_has_help() -> None:
    found = all_commands()
    assert {"awry run", "awry send", "awry serve", "awry kafka", "awry db retain", "awry fit"} <= set(found)
    silent = [name for name, command in found.items() if not (command.help or "").strip()]
    for name, command in found.items():
        silent += [f"{name} {p.name}" for p in command.params if not (getattr(p, "help", "") or "").strip()]
    assert silent == []


# Options that mean several things: what a command works with, and which rows it lists; where a stream starts, and a
# file; how far back, and since when; alerts, messages, and a token. Of studies: of the one planted, and of others.
TWO = (
    "--model",
    "--state",
    "--from",
    "--out",
    "--since",
    "--conversation",
    "--format",
    "--behaviour",
    "--draws",
    "--seed",
)
MEANINGS = {**dict.fromkeys(TWO, 2), "--tenant": 3, "--probe": 3}


def test_an_option_is_the_same_everywhere() -> None:
    variants: dict[str, set[tuple[str, object]]] = defaultdict(set)
    for command in all_commands().values():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                variants[parameter.opts[0]].add((parameter.help, type_of(parameter)))
    assert len(variants) > 100
    assert {name: len(found) for name, found in variants.items() if len(found) > 1} == MEANINGS


def test_options_are_declared_in_one_module() -> None:
    declaring = [
        path.name
        for path in (ROOT / "monitor" / "cli").rglob("*.py")
        if re.search(r"\b(Option|Argument)\(", path.read_text())
    ]
    assert declaring == ["options.py"]


def test_commands_do_not_import_the_root() -> None:
    for path in (ROOT / "monitor" / "cli").rglob("*.py"):
        assert "monitor.cli.app" not in path.read_text(), path


def test_paragraphs_of_help_are_not_broken_where_the_source_is() -> None:
    assert all("\n" not in (c.help or "").replace("\n\n", "") for c in all_commands().values())


def test_what_reads_the_database_says_which() -> None:
    """Every command with --database-url has --state-dir, where the embedded one is."""
    flags = {name: {o for p in c.params for o in p.opts} for name, c in all_commands().items()}
    for name, own in flags.items():
        assert "--database-url" not in own or "--state-dir" in own, name
    for name in ("calibrate", "rules test", "alerts precision", "outbox enable", "grafana push", "replay", "serve"):
        assert "--database-url" in flags[f"awry {name}"]


def test_the_console_script_prints_its_commands() -> None:
    done = subprocess.run([AWRY, "--help"], capture_output=True, text=True, check=True)
    names = "run send serve kafka replay messages stack demo fit alerts rules tokens outbox db study config doctor"
    for name in names.split():
        assert f" {name} " in done.stdout
