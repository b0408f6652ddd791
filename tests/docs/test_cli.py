"""docs/cli.md is what the tree of commands says, and every command in a document can be typed as it is."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from scripts.cli_reference import cli_reference
from tests.support import ROOT
from tests.support.cli import all_commands, parse

PAGE = ROOT / "docs" / "cli.md"
DOCUMENTS = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")} - {PAGE})
_BLOCK = re.compile(r"^```(?:sh|bash|text|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def typed(text: str) -> list[list[str]]:
    """The words after `awry` of each command in code blocks, also of those in `$( )` and after `;`, `|` and `&&`."""
    found = []
    for block in _BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            code = re.sub(r"(^|\s)#.*", "", line)
            for piece in re.split(r"[;|()]|&&|\s>\s|\s&$", code):
                match = re.match(r"\s*(?:\w+=\S+\s+|docker-compose (?:exec|run --rm) \w+ )*awry\s+(.*)", piece)
                if match:
                    found.append(shlex.split(match[1]))
    return found


def test_the_page_is_up_to_date() -> None:
    fresh = runpy.run_path(str(ROOT / "scripts" / "docs.py"))["generated"]()
    assert fresh[PAGE] == PAGE.read_text(), "run make docs"


def test_the_page_has_every_command_option_and_default() -> None:
    lines = cli_reference()
    text = "\n".join(lines)
    for name, command in all_commands().items():
        assert f"### {name}" in lines
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert f"`{parameter.opts[0]}`" in text
    assert "| `--draws` | INTEGER | `20` |" in text
    assert "(also the environment's `GRAFANA_TOKEN`)" in text
    assert "| `--judge` | `--metric` |" in text
    assert "awry grafana push --url TEXT --token TEXT [OPTIONS]" in lines
    assert "awry alerts ack [OPTIONS] ALERT..." in lines


def test_the_page_says_what_every_json_document_is() -> None:
    section = PAGE.read_text().partition("## JSON\n")[2].partition("\n## ")[0]
    listed = set()
    for cell in re.findall(r"^\| (`awry .*?) \|", section, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        group = first.rpartition(" ")[0]
        listed |= {first, *(other if other.startswith("awry ") else f"{group} {other}" for other in others)}
    has_json = {
        name
        for name, command in all_commands().items()
        if not hasattr(command, "commands") and any("--json" in parameter.opts for parameter in command.params)
    }
    assert listed == has_json


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_parses(
    document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", "as the document says")
    for words in typed(document.read_text()):
        parse(words)
    assert capsys.readouterr().err == "", "a deprecated name"


def test_commands_are_found_in_blocks() -> None:
    text = "```sh\nX=1 awry run --source a  # c\nT=$(awry tokens create a); awry alerts | head\n```\n`awry no block`\n"
    assert typed(text) == [["run", "--source", "a"], ["tokens", "create", "a"], ["alerts"]]
    assert sum(len(typed(document.read_text())) for document in DOCUMENTS) >= 40


@pytest.mark.parametrize(
    "command", ["run --no-such-flag", "alerts no-such", "tokens create a --scope everything", "show x"]
)
def test_what_cannot_be_typed_is_seen(command: str) -> None:
    with pytest.raises(Exception, match=r"no-such|everything|show"):
        parse(command.split())
