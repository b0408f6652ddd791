"""What a settings file that nobody named may not set.

`awry.toml` of the current folder is read because of where awry was started, be it a folder that somebody else packed.
So it may not run code, move the state folder (the server of the embedded PostgreSQL runs what a data folder's
configuration names), or write to files outside of its folder. A flag, the environment and a file that AWRY_CONFIG names
are what the user said, and may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# What each setting does that only its owner may ask for.
RUNS = {
    "trust_remote_code": "runs the code that a model's repository brings",
    "judge_command": "runs a program",
    "state_dir": "is where a PostgreSQL is started by the configuration that it finds there",
}
# Settings that name a file to write to, or what is none: -, none, kafka:TOPIC.
OUTPUTS = ("answers_out", "verdicts_out", "dead_letters_out")
_NO_FILE = ("-", "none")
_ANSWERS = "answers.jsonl"
_WHERE = "awry.toml of the current folder, which nobody named, may not set it"


def untrusted(document: Mapping[str, Any], folder: Path) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """(path, what is wrong, fix) of what such a file must not hold; `folder` is the file's, resolved."""
    for name, does in RUNS.items():
        if document.get(name) not in (None, False, [], ()):
            yield (name,), f"{does}: {_WHERE}", _fix(name)
    outputs: dict[tuple[str | int, ...], Any] = {(name,): document.get(name) for name in OUTPUTS}
    if document.get("mitigate") not in (None, "off"):
        # Where it writes without being told to may be a link in such a folder.
        outputs["answers_out",] = document.get("answers_out", _ANSWERS)
    destinations = document.get("destinations")
    for i, each in enumerate(destinations if isinstance(destinations, list) else []):
        if isinstance(each, dict):
            outputs["destinations", i, "path"] = each.get("path")
    for loc, written in outputs.items():
        if isinstance(written, str) and not _is_within(written, folder):
            yield loc, f"writes to a file outside of the folder: {_WHERE}", _fix(str(loc[0]))


def _is_within(written: str, folder: Path) -> bool:
    """Whether an output stays in the folder, links followed; an output that is no file does."""
    if written in _NO_FILE or written.startswith("kafka:"):
        return True
    try:
        return (folder / written).resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # a loop of links, a zero in the path
        return False


def _fix(name: str) -> str:
    return f"if the file is yours, say so: AWRY_CONFIG=./awry.toml; or set AWRY_{name.upper()}"
