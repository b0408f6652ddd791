"""deploy/vllm: what its files say is what the connector and the middleware take, and the script starts vLLM with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from probes.card import load_probe
from probes.vllm.claims import key_of
from probes.vllm.middleware import Trusted
from probes.vllm.settings import ConnectorSettings
from tests.support import ROOT

FOLDER = ROOT / "deploy" / "vllm"
DOCS = (ROOT / "docs" / "vllm.md").read_text(encoding="utf-8")


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that has the package vllm if `vllm` is beside it, and says how it was called."""
    program = tmp_path / "python"
    program.write_text(
        '#!/bin/sh\n[ "$1" = -c ] && { [ -e "$(dirname "$0")/vllm" ]; exit; }\n'
        'printf "%s\\n" "$AWRY_READINGS_KEY" "$AWRY_TRUSTED_HEADERS" "$VLLM_NO_USAGE_STATS" "$@"\n'
    )
    program.chmod(0o755)
    return program


def served(python: Path, *arguments: str, **environment: str) -> list[str]:
    """The lines that the Python said: three variables, then its arguments; the connector's JSON is one of them."""
    done = subprocess.run(
        ["sh", FOLDER / "serve.sh", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHON": str(python), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    config = (Path(environment.get("AWRY_CONNECTOR", FOLDER / "connector.json"))).read_text().rstrip("\n")
    assert config in done.stdout
    return done.stdout.replace(config, "CONFIG").splitlines()


# A later one of the same name counts.
FIRST = ["--shutdown-timeout", "30"]
TAIL = ["--enforce-eager", "--kv-transfer-config", "CONFIG", "--middleware", "probes.vllm.middleware.TrustedHeaders"]


def test_serve_is_vllm_serve(python: Path) -> None:
    (python.parent / "vllm").touch()
    _, trusted, usage, *words = served(python, "some/model", "--port", "81 2")
    assert words == ["-m", "vllm.entrypoints.cli.main", "serve", "some/model", *FIRST, "--port", "81 2", *TAIL]
    assert trusted == str(FOLDER / "trusted.json")
    assert usage == "1"


def test_with_the_build_for_processors_it_is_the_module_that_serve_runs(python: Path) -> None:
    words = served(python, "some/model")[3:]
    assert words == ["-m", "vllm.entrypoints.launchers.api_server.entry", "--model", "some/model", *FIRST, *TAIL]


def test_each_server_has_a_key_of_its_own(python: Path, tmp_path: Path) -> None:
    first, second = (served(python, "m")[0] for _ in range(2))
    assert first != second
    for key in (first, second):
        assert key_of({"AWRY_READINGS_KEY": key})
        assert re.fullmatch(r"[0-9a-f]{64}", key)
    mine = tmp_path / "mine.json"
    mine.write_text('{"kv_connector": "AwryConnector"}\n')
    key, trusted, *_ = served(
        python, "m", AWRY_READINGS_KEY="k" * 40, AWRY_CONNECTOR=str(mine), AWRY_TRUSTED_HEADERS="/mine"
    )
    assert (key, trusted) == ("k" * 40, "/mine")


@pytest.mark.parametrize(
    ("arguments", "environment", "said"), [((), {}, "serve.sh MODEL"), (("m",), {"AWRY_CONNECTOR": "/no"}, "/no")]
)
def test_it_says_what_is_missing(
    python: Path, arguments: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    done = subprocess.run(
        ["sh", FOLDER / "serve.sh", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHON": str(python), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("name", ["connector.json", "connector.compose.json"])
def test_the_connector_takes_its_settings(name: str) -> None:
    given = json.loads((FOLDER / name).read_text())
    settings = ConnectorSettings.read(given["kv_connector_extra_config"])
    assert [load_probe(probe).name for probe in settings.probes] == list(settings.probes)
    assert given["kv_connector_module_path"] == "monitor.readings.connector"


def test_the_middleware_takes_its_settings() -> None:
    assert Trusted.load({"AWRY_TRUSTED_HEADERS": str(FOLDER / "trusted.json")}) == Trusted()


def test_no_file_names_a_package_index() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text()
        assert not re.search(r"https?://|(?<!emit-)index-url|find-links|extra-index", text), path.name


def test_the_page_has_the_lines_of_the_files() -> None:
    assert "sh deploy/vllm/serve.sh MODEL" in DOCS
    for argument in (
        "--shutdown-timeout 30",
        "--enforce-eager",
        "--kv-transfer-config",
        "--middleware probes.vllm.middleware.TrustedHeaders",
    ):
        assert argument in DOCS
    for name in json.loads((FOLDER / "connector.json").read_text())["kv_connector_extra_config"]:
        assert f"`{name}`" in DOCS
    for name in (*Trusted().headers.values(), *json.loads((FOLDER / "trusted.json").read_text())):
        assert f"`{name}`" in DOCS or name == "headers"
    for file in re.findall(r"deploy/vllm/[\w.]+", DOCS):
        assert (ROOT / file).exists(), file
    for name in ConnectorSettings.model_fields:
        assert f"`{name}`" in DOCS, name
