"""The `awry` command for tests: in a process of its own, in this process, and as a tree of commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from typer.main import get_command
from typer.testing import CliRunner, Result

from monitor.cli.app import app, known_error

Invoke = Callable[..., Result]
AWRY = str(Path(sys.executable).with_name("awry"))
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


def environment() -> dict[str, str]:
    """Of a process whose terminal would be wide."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "300", "OMP_NUM_THREADS": "1"}


def awry(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, piped."""
    command = [AWRY, *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=environment(), check=False, timeout=120
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed on purpose."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    errors = [x for x in done.stderr.splitlines() if x.startswith("awry: ")]
    assert done.stderr.splitlines()[-1] == errors[-1], done.stderr
    return errors[-1]


def invoke(*arguments: str | Path) -> Result:
    """The command in this process; what it raises is in `exception`."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def output_of(result: Result) -> str:
    """All that a command printed that succeeded."""
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def message_of(result: Result) -> str:
    """The message of a command that failed on purpose in this process."""
    assert isinstance(result.exception, Exception), result.output
    message = known_error(result.exception)
    assert message is not None, repr(result.exception)
    return message


def loaded(arguments: list[str], extra: str = "") -> set[str]:
    """Which heavy libraries a process has imported after `awry ARGUMENTS`."""
    code = extra + _PROBE.format(arguments=arguments, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED:")[2].strip().split(",")) - {""}


def all_commands() -> dict[str, Any]:
    """Every group and command by its whole name, such as `awry db retain`."""
    return dict(_below(get_command(app), "awry"))


def _below(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for sub, command in group.commands.items():
        yield f"{name} {sub}", command
        if hasattr(command, "commands"):
            yield from _below(command, f"{name} {sub}")


def type_of(parameter: Any) -> object:
    """The type of an option's value, of each one where it may be given again."""
    annotation = parameter.type_descriptor.annotation
    return get_args(annotation)[0] if get_origin(annotation) is list else annotation


def parse(words: list[str]) -> Any:
    """The command that `awry WORDS` names, its arguments parsed and nothing run. Raises for what it does not take."""
    command: Any = get_command(app)
    left = list(words)
    while hasattr(command, "commands") and left and not left[0].startswith("-"):
        command = command.commands[left.pop(0)]
    command.make_context(" ".join(words), left)
    return command
