"""The root: version, completion, deprecated names, and what becomes of errors."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import version

import pytest
from sqlalchemy import Engine

from monitor.cli.app import known_error
from monitor.cli.tree import DEPRECATED_COMMANDS, DEPRECATED_FLAGS
from monitor.errors import SettingsError
from probes.errors import DataError
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.cli import AWRY, Invoke, all_commands, awry, invoke


def test_the_version() -> None:
    done = awry("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"awry {version('awry')}\n", "")


def test_alone_it_prints_help() -> None:
    assert "Processes" in invoke().output
    assert invoke("db").output.count("upgrade") >= 1


def test_the_shell_completes_commands_and_flags() -> None:
    def completed(words: str) -> list[str]:
        environment = {**os.environ, "_AWRY_COMPLETE": "complete_bash", "COMP_WORDS": words}
        environment["COMP_CWORD"] = str(len(words.split(" ")) - 1)
        done = subprocess.run([AWRY], env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("awry to") == ["tokens"]
    assert completed("awry alerts unsil") == ["unsilence"]
    assert completed("awry run --rules") == ["--rules-file"]
    assert completed("awry token cre") == ["create"]  # a deprecated name warns nobody here


def test_a_deprecated_command_works_and_warns(engine: Engine, run: Invoke) -> None:
    new, old = run("tokens", "create", "a"), run("token", "create", "b")
    assert (new.exit_code, old.exit_code) == (0, 0)
    assert "deprecated" not in new.stderr
    assert old.stderr.splitlines()[0] == "awry: awry token is deprecated, use awry tokens"
    assert old.stdout.startswith("awry_")  # the secret alone
    shown = run("show", "nothing")
    assert shown.stderr.splitlines() == ["awry: awry show is deprecated, use awry messages show"]
    assert repr(shown.exception) == repr(run("messages", "show", "nothing").exception)


@pytest.mark.parametrize("flag", [("--rules", "none.toml"), ("--rules=none.toml",)])
def test_a_deprecated_flag_works_and_warns(
    engine: Engine, run: Invoke, flag: tuple[str, ...], tmp_path: object
) -> None:
    written = [part.format(file="none.toml") for part in flag]
    old, new = run("rules", "test", *written), run("rules", "test", "--rules-file", "none.toml")
    assert old.stderr.splitlines() == ["awry: --rules is deprecated, use --rules-file"]
    assert new.stderr == ""
    assert str(old.exception) == str(new.exception)
    assert str(new.exception).startswith("rules_file: cannot read none.toml")


def test_every_deprecated_flag_is_taken_where_the_new_one_is() -> None:
    for old, new in DEPRECATED_FLAGS.items():
        takers = {
            name: command
            for name, command in all_commands().items()
            if not hasattr(command, "commands") and any(new in parameter.opts for parameter in command.params)
        }
        assert takers, new
        for name, command in takers.items():
            context = command.make_context(name, [old, "x"], resilient_parsing=True)
            parameter = next(p for p in command.params if new in p.opts)
            assert context.params[parameter.name], (name, old)


def test_an_old_name_is_not_replaced_where_it_means_something_else() -> None:
    """`--name` is old for `adapters train` alone; after `--` there are no flags."""
    done = invoke("fit", "--name", "x", "--labelled", "none", "--model", "/nowhere")
    assert "deprecated" not in done.stderr
    done = invoke("label", "--", "--judge")
    assert "deprecated" not in done.stderr


def test_deprecated_names_are_in_no_help() -> None:
    names = set(all_commands())
    assert not {f"awry {old}" for old in DEPRECATED_COMMANDS} & names
    assert {f"awry {new}" for new in DEPRECATED_COMMANDS.values()} <= names
    assert "--judge" not in invoke("label", "--help").output


def test_known_errors() -> None:
    assert known_error(SettingsError("model: no")) == "model: no"
    assert known_error(DataError("rows: none")) == "rows: none"
    assert known_error(ValueError("a defect")) is None


def test_an_option_of_a_group_holds_for_what_it_does_alone(engine: Engine, run: Invoke) -> None:
    open_alerts(engine, [flagged(1)])
    assert run("alerts", "--json").stdout == run("alerts", "list", "--json").stdout != ""


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("alerts list --limit 10001", "--limit"),
        ("db retain --days 99999999", "--days"),
        ("kafka --port 99999", "--port"),
        ("kafka --partitions 0", "--partitions"),
        ("rules budget --prevalence 0.1 --tpr 1 --fpr 0 --per-day -1", "--per-day"),
    ],
)
def test_a_number_out_of_bounds_is_refused_before_anything_runs(words: str, option: str) -> None:
    done = invoke(*words.split())
    assert done.exit_code == 2
    assert f"Invalid value for {option}" in done.stderr.replace("'", "")
