"""The pages of docs/gateways for tests: their blocks of code, and a folder in which those are run.

Blocks run as they stand, but for addresses that are exchanged. Addresses other than loopback are behind a proxy that is
not there: what a program sends elsewhere is an error, and leaves nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from monitor.stream.parse import parse
from monitor.stream.spool import decode_line
from monitor.stream.wire import WireMessage
from tests.support import ROOT


def blocks(page: str, language: str) -> list[str]:
    """The code of a page in one language, in order."""
    text = (ROOT / "docs" / "gateways" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}(?: [^\n]*)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def holding(page: str, language: str, *words: str) -> str:
    """The one block that holds all of `words`."""
    (found,) = [block for block in blocks(page, language) if all(word in block for word in words)]
    return found


class Place:
    """A folder in which the lines of a page are run: with a receiver, a service, and addresses that are exchanged."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.changes: dict[str, str] = {}
        self.environment = environment

    def text(self, block: str) -> str:
        for before, after in self.changes.items():
            block = block.replace(before, after)
        return block

    def start(self, lines: str, python: Path | None = None) -> subprocess.Popen[str]:
        """Lines of a shell, in a group of their own; the programs of a client's environment come first."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWRY_", "OTEL_"))}
        programs = [str(python.parent)] if python else []
        environment = {
            **inherited,
            "PATH": ":".join([*programs, str(Path(sys.executable).parent), os.environ["PATH"]]),
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            **self.environment,
        }
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", self.text(lines)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=self.folder,
            start_new_session=True,
        )

    def shell(self, lines: str, python: Path | None = None) -> str:
        """What the lines print; they must succeed."""
        process = self.start(lines, python)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said

    def python(self, block: str, python: Path, exports: str = "") -> str:
        (self.folder / "app.py").write_text(self.text(block), encoding="utf-8")
        return self.shell(f"{exports}\npython app.py", python)

    def arrived(self) -> list[WireMessage]:
        """What is in the spool, as the worker reads it; all of it must be readable."""
        spooled = [
            decode_line(line)
            for path in sorted((self.folder / "spool").glob("*.jsonl"))
            for line in path.read_bytes().splitlines()
        ]
        read = [each for one in spooled for each in parse(one.payload, one.headers)]
        found = [each for each in read if isinstance(each, WireMessage)]
        assert found == read
        return found
