"""scripts/pin_images.sh against a real registry on loopback: digests behind tags, moved by a second run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import needs_program
from tests.support import ROOT

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "scripts/pin_images.sh"
FILE = """\
ARG PYTHON_IMAGE={at}/python:3.13-slim
services:
  run:
    image: awry:0.1.0
  database:
    image: {at}/postgres:18
  again:
    image: {at}/postgres:18  # not a line of its own
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Host and port of a registry with nothing in it."""
    needs_program("skopeo", "apt-get install skopeo")
    program = needs_program("docker-registry", "apt-get install docker-registry")
    at = f"127.0.0.1:{free_port()}"
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": at},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(settings))
    # Plain HTTP, which containers' tools speak only where they are told to.
    own = tmp_path / ".config" / "containers" / "registries.conf"
    own.parent.mkdir(parents=True)
    own.write_text(f'[[registry]]\nlocation = "{at}"\ninsecure = true\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(tmp_path / "registry.yml")], stdout=log, stderr=log)
    try:
        for _ in range(600):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", int(at.rpartition(":")[2]))) == 0:
                    break
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield at
    finally:
        process.kill()
        process.wait()


def push(folder: Path, name: str, said: str) -> str:
    """Push an image with a label and no layer; its manifest's digest."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: dict[str, object], kind: str) -> dict[str, object]:
        data = json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}+json", "digest": f"sha256:{digest}", "size": len(data)}

    config = blob(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"said": said}},
            "rootfs": {"type": "layers", "diff_ids": []},
        },
        "config.v1",
    )
    manifest = blob({"schemaVersion": 2, "config": config, "layers": []}, "manifest.v1")
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    command = ["skopeo", "copy", "--insecure-policy", f"oci:{folder}", f"docker://{name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return str(manifest["digest"])


def pin(*files: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(SCRIPT), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ))


def test_tags_get_the_digests_that_the_registry_has(registry: str, tmp_path: Path) -> None:
    python = push(tmp_path / "one", f"{registry}/python:3.13-slim", "python")
    database = push(tmp_path / "two", f"{registry}/postgres:18", "first")
    file = tmp_path / "compose.yml"
    file.write_text(FILE.format(at=registry))
    done = pin(file)
    assert done.returncode == 0, done.stderr
    lines = file.read_text().splitlines()
    assert lines[0] == f"ARG PYTHON_IMAGE={registry}/python:3.13-slim@{python}"
    assert lines[3] == "    image: awry:0.1.0", "what was not pushed has no digest"
    assert lines[5] == f"    image: {registry}/postgres:18@{database}"

    moved = push(tmp_path / "three", f"{registry}/postgres:18", "second")
    assert moved != database
    assert pin(file).returncode == 0
    assert file.read_text().splitlines() == [line.replace(database, moved) for line in lines]


def test_nothing_changes_where_an_image_is_missing(registry: str, tmp_path: Path) -> None:
    push(tmp_path / "one", f"{registry}/python:3.13-slim", "python")
    file = tmp_path / "compose.yml"
    file.write_text(FILE.format(at=registry))
    done = pin(file)
    assert done.returncode == 1
    assert f"no digest for {registry}/postgres:18" in done.stderr
    assert file.read_text() == FILE.format(at=registry)


def test_every_image_of_the_repository_is_one_that_the_script_sees() -> None:
    text = (ROOT / "Dockerfile").read_text() + (ROOT / "docker-compose.yml").read_text()
    pattern = re.search(r"^image='(.*)'$", SCRIPT.read_text(), re.MULTILINE)
    assert pattern is not None
    seen = re.findall(pattern[1].replace("[[:space:]]", r"\s"), text, re.MULTILINE)
    named = re.findall(r"^ *image: *(\S+)|^ARG PYTHON_IMAGE=(\S+)", text, re.MULTILINE)
    assert len(seen) == len(named) >= 7
