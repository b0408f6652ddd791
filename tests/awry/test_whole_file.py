"""A file is written at once or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from awry.whole_file import PRIVATE, SHARED, whole_file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_there_stays_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"before")
    with whole_file(path) as file:
        file.write(b"after")
        file.flush()
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert [each.name for each in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_error_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"before")

    def fails() -> None:
        with whole_file(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fails()
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize(
    ("mode", "umask", "found"), [(PRIVATE, 0, 0o600), (SHARED, 0o022, 0o644), (SHARED, 0o077, 0o600)]
)
def test_the_mode_is_the_files_from_the_start(tmp_path: Path, mode: int, umask: int, found: int) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"")
    path.chmod(0o777)
    before = os.umask(umask)
    try:
        with whole_file(path, mode=mode):
            (scratch,) = [each for each in tmp_path.iterdir() if each != path]
            assert mode_of(scratch) == found
    finally:
        os.umask(before)
    assert mode_of(path) == found


def test_a_folder_that_is_not_there_or_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "nowhere" / "rows.csv"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"), whole_file(tmp_path / "folder") as file:
        file.write(b"x")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with whole_file(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """A pipe here; for root it would be /dev/null."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file"), whole_file(path) as file:
        file.write(b"x")
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
