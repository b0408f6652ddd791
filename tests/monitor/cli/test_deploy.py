"""`awry deploy write`: every file of deploy/, and no change of somebody's own lost."""

from __future__ import annotations

from pathlib import Path

from tests.support import ROOT
from tests.support.cli import invoke, message_of, output_of


def test_all_files_are_written_once(tmp_path: Path) -> None:
    folder = tmp_path / "deploy"
    said = output_of(invoke("deploy", "write", folder))
    originals = {p.relative_to(ROOT / "deploy"): p for p in (ROOT / "deploy").rglob("*") if p.is_file()}
    assert {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()} == set(originals)
    for name, path in originals.items():
        assert (folder / name).read_bytes() == path.read_bytes()
        assert (folder / name).stat().st_mode & 0o111 == path.stat().st_mode & 0o111, "a script can be run"
        assert f"wrote {folder / name}" in said
    assert "up to date" in output_of(invoke("deploy", "write", folder))


def test_what_was_changed_is_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "deploy"
    output_of(invoke("deploy", "write", folder))
    rules, roles = folder / "rules.example.toml", folder / "postgres" / "roles.sql"
    rules.write_text("mine")
    roles.unlink()
    message = message_of(invoke("deploy", "write", folder))
    assert "rules.example.toml" in message
    assert "nothing was written" in message
    assert rules.read_text() == "mine"
    assert not roles.exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write to" in message_of(invoke("deploy", "write", tmp_path / "file"))
