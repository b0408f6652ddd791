"""Files that are followed: every complete line once, in its log, at its offset, through rotation. Real files only."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import SourceError
from monitor.settings import Settings
from monitor.stream import jsonl_follow
from monitor.stream.jsonl import JsonLines
from monitor.stream.record import Record
from monitor.stream.wiring import check_source, open_source


@pytest.fixture(autouse=True, scope="module")
def _look_at_once() -> Iterator[None]:
    """Each step looks for new files, as if the time between two looks had passed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl_follow, "LOOK_SECONDS", 0.0)
        yield


def append(path: Path, *lines: bytes) -> None:
    with path.open("ab") as file:
        file.writelines(line + b"\n" for line in lines)


def log_of(first: bytes) -> str:
    return hashlib.sha256(first).hexdigest()[:32]


def settled(source: JsonLines) -> list[Record]:
    """All that is there now."""
    records: list[Record] = []
    quiet = 0
    while quiet < 4:
        batch = source.poll(50, 0.0)
        records += batch
        quiet = 0 if batch else quiet + 1
    return records


def texts(records: list[Record]) -> list[bytes | None]:
    return [r.payload for r in records]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.jsonl"


@pytest.fixture
def source(path: Path) -> Iterator[JsonLines]:
    append(path, b"a0", b"a1")
    opened = JsonLines(str(path), follow=True)
    yield opened
    opened.close()


def test_the_identity_is_the_first_line_that_is_not_blank(path: Path) -> None:
    path.write_bytes(b"\n \nfirst\nsecond")
    records = _once(path)
    assert {r.log for r in records} == {log_of(b"first")}
    append(path, b" goes on", b"third")
    assert {r.log for r in _once(path)} == {log_of(b"first")}


def test_the_identity_of_a_long_first_line_is_of_its_beginning(path: Path) -> None:
    """The same whatever the size limit is."""
    line = b"x" * (1 << 16) + b"rest"
    append(path, line, b"next")
    for limit in (10, 1 << 16, 1 << 20):
        assert {r.log for r in _once(path, max_bytes=limit)} == {log_of(line[: 1 << 16])}


def _once(path: Path, **more: int) -> list[Record]:
    source = JsonLines(str(path), max_bytes=more.get("max_bytes", 4096))
    records: list[Record] = []
    while not source.finished:
        records += source.poll(10, 0.01)
    source.close()
    return records


def test_another_file_of_the_same_name_is_another_log(tmp_path: Path) -> None:
    for day in ("1", "2"):
        (tmp_path / day).mkdir()
        append(tmp_path / day / "t.jsonl", b"%s first" % day.encode())
    first, second = (_once(tmp_path / day / "t.jsonl")[0] for day in ("1", "2"))
    assert first.at == second.at
    assert first.log != second.log
    shutil.copy(tmp_path / "1" / "t.jsonl", tmp_path / "2" / "t.jsonl")
    assert _once(tmp_path / "2" / "t.jsonl") == [first]


def test_rename_and_create(path: Path, source: JsonLines) -> None:
    assert texts(settled(source)) == [b"a0", b"a1"]
    with path.open("ab") as writer:
        path.rename(f"{path}.1")
        append(path, b"b0", b"b1")
        writer.write(b"a2\n")
    with structlog.testing.capture_logs() as said:
        records = settled(source)
    assert [(r.payload, r.at.source, r.at.offset, r.log) for r in records] == [
        (b"a2", "app.jsonl", 6, log_of(b"a0")),
        (b"b0", "app.jsonl", 0, log_of(b"b0")),
        (b"b1", "app.jsonl", 3, log_of(b"b0")),
    ]
    assert [s["event"] for s in said] == ["source: a file was replaced"]
    append(Path(f"{path}.1"), b"late")  # a writer that holds the old file still
    assert [(r.payload, r.at.offset) for r in settled(source)] == [(b"late", 9)]


def test_a_new_file_that_is_made_later(path: Path, source: JsonLines) -> None:
    settled(source)
    append(path, b"a2")
    path.rename(f"{path}.1")
    with structlog.testing.capture_logs() as said:
        assert texts(settled(source)) == [b"a2"]
        assert "source: a file is gone" in said[0]["event"]
        append(path, b"b0")
        assert texts(settled(source)) == [b"b0"]
    assert len(said) == 2


def test_deleted_and_made_again(path: Path, source: JsonLines) -> None:
    settled(source)
    append(path, b"a2")
    path.unlink()
    append(path, b"b0")
    assert [(r.payload, r.log) for r in settled(source)] == [(b"a2", log_of(b"a0")), (b"b0", log_of(b"b0"))]


@pytest.mark.parametrize("generations", [2, 3, 5])
@pytest.mark.parametrize("packs", [False, True])
def test_several_rotations_between_two_looks(path: Path, source: JsonLines, generations: int, packs: bool) -> None:
    """Files that no look has seen under the name are found beside it; old ones, and copies, are not read."""
    settled(source)
    for n in range(1, generations + 1):
        for number in range(generations, 0, -1):
            for ending in ("", ".gz"):
                if Path(f"{path}.{number}{ending}").exists():
                    Path(f"{path}.{number}{ending}").rename(f"{path}.{number + 1}{ending}")
        path.rename(f"{path}.1")
        append(path, b"g%d" % n, b"same")
        os.utime(path, ns=(n * 10**9, n * 10**9))
        if packs and n == generations:  # what was read already is packed at once
            old = Path(f"{path}.{generations}")
            Path(f"{old}.gz").write_bytes(gzip.compress(old.read_bytes()))
            old.unlink()
    records = settled(source)
    assert [(r.payload, r.at.offset) for r in records] == [
        each for n in range(1, generations + 1) for each in ((b"g%d" % n, 0), (b"same", 3))
    ]
    assert {r.at.source for r in records} == {"app.jsonl"}


def test_old_files_beside_it_are_not_read(path: Path) -> None:
    append(Path(f"{path}.1"), b"old1")
    append(Path(f"{path}.2"), b"old2")
    append(path, b"a0")
    source = JsonLines(str(path), follow=True)
    settled(source)
    for number in (2, 1):
        Path(f"{path}.{number}").rename(f"{path}.{number + 1}")
    path.rename(f"{path}.1")
    Path(f"{path}.3.gz").write_bytes(gzip.compress(b"old2\n"))
    Path(f"{path}.3").unlink()
    append(path, b"b0")
    assert texts(settled(source)) == [b"b0"]
    source.close()


def test_the_old_file_is_packed_and_deleted_while_it_has_unread_lines(path: Path, source: JsonLines) -> None:
    append(path, b"a2")
    path.rename(f"{path}.1")
    Path(f"{path}.1.gz").write_bytes(gzip.compress(Path(f"{path}.1").read_bytes()))
    Path(f"{path}.1").unlink()
    append(path, b"b0")
    assert texts(settled(source)) == [b"a0", b"a1", b"a2", b"b0"]


def test_a_link_that_leads_elsewhere(tmp_path: Path) -> None:
    append(tmp_path / "1", b"a0")
    append(tmp_path / "2", b"b0")
    link = tmp_path / "current"
    link.symlink_to("1")
    source = JsonLines(str(link), follow=True)
    assert texts(settled(source)) == [b"a0"]
    append(tmp_path / "1", b"a1")
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(link)
    assert [(r.payload, r.at.source) for r in settled(source)] == [(b"a1", "current"), (b"b0", "current")]
    source.close()


@pytest.mark.parametrize("packed", [False, True])
def test_copytruncate_with_a_copy_loses_nothing(path: Path, source: JsonLines, packed: bool) -> None:
    settled(source)
    append(path, b"a2")
    with path.open("ab") as file:
        file.write(b"half")
    settled(source)
    append(path, b" line", b"a4")
    if packed:
        Path(f"{path}.1.gz").write_bytes(gzip.compress(path.read_bytes()))
    else:
        shutil.copy(path, f"{path}.1")
    os.truncate(path, 0)
    append(path, b"b0")
    with structlog.testing.capture_logs() as said:
        records = settled(source)
    assert sorted((r.payload or b"", r.at.offset, r.log) for r in records) == [
        (b"a4", 19, log_of(b"a0")),
        (b"b0", 0, log_of(b"b0")),
        (b"half line", 9, log_of(b"a0")),
    ]
    assert source.lost_bytes == 0
    assert [s["rest_read_from"] for s in said if "rest_read_from" in s] == [f"{path}.1{'.gz' * packed}"]


@pytest.mark.parametrize("regrown", [1, 2, 3, 50])
def test_truncated_and_grown_again_between_two_looks(path: Path, source: JsonLines, regrown: int) -> None:
    """Shorter than before, as long, or longer: what was not read and is nowhere else is counted as lost."""
    settled(source)
    with path.open("ab") as file:
        file.write(b"unfinished")
    settled(source)
    os.truncate(path, 0)
    new = [b"b%03d" % n for n in range(regrown)]
    append(path, *new)
    with structlog.testing.capture_logs() as said:
        records = settled(source)
    assert texts(records) == new
    assert [r.at.offset for r in records] == [5 * n for n in range(regrown)]
    assert {r.log for r in records} == {log_of(b"b000")}
    assert source.lost_bytes == len(b"unfinished")
    assert [s["lost_bytes"] for s in said] == [len(b"unfinished")]


def test_written_anew_with_the_same_first_line(path: Path, source: JsonLines) -> None:
    settled(source)
    path.write_bytes(b"a0\nc1\nc2\n")
    assert [(r.payload, r.at.offset) for r in settled(source)] == [(b"a0", 0), (b"c1", 3), (b"c2", 6)]


def test_a_first_line_that_grows_slowly_and_blank_lines_before_it(path: Path) -> None:
    path.touch()
    source = JsonLines(str(path), follow=True)
    with structlog.testing.capture_logs() as said:
        for part in (b"", b"\n", b"  \n", b"f", b"irs", b"t"):
            with path.open("ab") as file:
                file.write(part)
            assert settled(source) == []
        append(path, b" line")
        (record,) = settled(source)
    assert (record.payload, record.at.offset, record.log) == (b"first line", 4, log_of(b"first line"))
    assert said == []
    path.rename(f"{path}.1")
    path.touch()
    assert settled(source) == []
    append(path, b"b0")
    assert texts(settled(source)) == [b"b0"]
    source.close()


def test_files_that_match_later(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file matches"):
        JsonLines(str(tmp_path / "*.jsonl"))
    source = JsonLines(f"{tmp_path}/*.jsonl,{tmp_path}/*.log", follow=True)
    assert settled(source) == []
    append(tmp_path / "1.jsonl", b"one")
    append(tmp_path / "1.txt", b"no")
    assert [(r.payload, r.at.source) for r in settled(source)] == [(b"one", "1.jsonl")]
    append(tmp_path / "2.log", b"two")
    append(tmp_path / "1.jsonl", b"more")
    assert source.lag == 5
    assert sorted(texts(settled(source))) == [b"more", b"two"]  # type: ignore[type-var]
    assert source.lag == 0
    append(tmp_path / "1.jsonl", b"12345")
    append(tmp_path / "2.log", b"123")
    assert source.lag == 10
    source.close()


def test_rotated_files_that_match_are_one_stream_and_read_once(tmp_path: Path) -> None:
    for n, name in enumerate(["app.jsonl.2", "app.jsonl.1", "app.jsonl"]):
        append(tmp_path / name, b"%d" % n)
        os.utime(tmp_path / name, (n + 1, n + 1))
    source = JsonLines(f"{tmp_path}/app.jsonl*", follow=True)
    records = settled(source)
    for number in (2, 1):
        (tmp_path / f"app.jsonl.{number}").rename(tmp_path / f"app.jsonl.{number + 1}")
    (tmp_path / "app.jsonl").rename(tmp_path / "app.jsonl.1")
    append(tmp_path / "app.jsonl", b"3")
    records += settled(source)
    assert [(r.payload, r.at.source) for r in records] == [(b"%d" % n, "app.jsonl") for n in range(4)]
    source.close()


def test_the_order_of_several_files(tmp_path: Path) -> None:
    for age, name in enumerate(["b", "a", "c"]):
        append(tmp_path / f"{name}.jsonl", name.encode())
        os.utime(tmp_path / f"{name}.jsonl", (age + 1, age + 1))
    append(tmp_path / "z", b"z")
    source = JsonLines(f"{tmp_path}/z, {tmp_path}/*.jsonl,{tmp_path}/a.jsonl", name="mine")
    assert source.lag == 8
    records = []
    while not source.finished:
        records += source.poll(1, 0.01)
    assert [(r.payload, r.at.source) for r in records] == [(n, "mine") for n in (b"z", b"b", b"a", b"c")]
    assert len({r.log for r in records}) == 4
    source.close()


def test_a_file_that_is_renamed_before_its_turn(tmp_path: Path) -> None:
    append(tmp_path / "a", b"a")
    append(tmp_path / "b", b"old")
    source = JsonLines(f"{tmp_path}/a,{tmp_path}/b")
    (tmp_path / "b").rename(tmp_path / "b.1")
    append(tmp_path / "b", b"new")
    records = []
    while not source.finished:
        records += source.poll(1, 0.01)
    assert texts(records) == [b"a", b"old"]
    source.close()


@pytest.mark.parametrize("source", ["", "a,", "a,,b", ","])
def test_a_name_that_is_missing(source: str) -> None:
    with pytest.raises(SourceError, match="a file's name is missing"):
        JsonLines(source)


def test_a_name_with_a_comma_and_a_star(tmp_path: Path) -> None:
    append(tmp_path / "a,*b", b"one")
    assert [(r.payload, r.at.source) for r in _once(tmp_path / "a,*b")] == [(b"one", "a,*b")]


def test_an_old_file_is_closed_after_its_grace(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it ends with then is a line, as for a file that is not followed."""
    append(path, b"a0")
    source = JsonLines(str(path), follow=True)
    settled(source)
    with path.open("ab") as file:
        file.write(b"half")
    path.unlink()
    append(path, b"b0")
    before = _open_below(path.parent)
    assert texts(settled(source)) == [b"b0"]
    monkeypatch.setattr(jsonl_follow, "GRACE_SECONDS", 0.0)
    assert [(r.payload, r.at.offset, r.log) for r in settled(source)] == [(b"half", 3, log_of(b"a0"))]
    assert _open_below(path.parent) == before
    source.close()


def _open_below(folder: Path) -> int:
    """How many files of a folder this process has open, deleted ones too."""
    links = (str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return sum(link.startswith(str(folder)) for link in links)


def test_the_settings_open_several_files(tmp_path: Path) -> None:
    append(tmp_path / "a.jsonl", b"a")
    append(tmp_path / "b", b"b")
    chosen = Settings(source=f"{tmp_path}/*.jsonl,{tmp_path}/b", state_dir=tmp_path)
    check_source(chosen)
    source = open_source(chosen)
    assert texts(source.poll(1, 1) + source.poll(1, 1)) == [b"a", b"b"]
    source.close()
    nothing = Settings(source=f"{tmp_path}/*.log", state_dir=tmp_path)
    with pytest.raises(SourceError, match=r"^source: no file matches .*/\*\.log"):
        check_source(nothing)
    check_source(nothing.model_copy(update={"follow": True}))
    with pytest.raises(SourceError, match=r"^source: there is no file .*/c$"):
        check_source(Settings(source=f"{tmp_path}/b,{tmp_path}/c", state_dir=tmp_path))


actions = st.lists(
    st.sampled_from(["write", "write", "write", "half", "rotate", "rotate late", "unlink", "read", "read one", "pack"]),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(actions=actions, pattern=st.booleans())
def test_any_interleaving_gives_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str], pattern: bool
) -> None:
    """Writes, half writes, rotations by rename and by deletion, packing, and reads of one record or all."""
    folder = tmp_path_factory.mktemp("any")
    path = folder / "app.jsonl"
    contents = [b""]
    path.touch()
    source = JsonLines(str(folder / "app.json*" if pattern else path), follow=True, name="x")
    seen: list[Record] = []
    number = 0

    def write(data: bytes) -> None:
        contents[-1] += data
        with path.open("ab") as file:
            file.write(data)

    try:
        seen += settled(source)
        for step, action in enumerate(actions):
            if action in ("write", "half"):
                number += 1
                write(b"line %d%s" % (number, b"\n" if action == "write" else b""))
            elif action in ("rotate", "rotate late", "unlink"):
                if contents[-1] and not contents[-1].endswith(b"\n"):
                    write(b"\n")
                if action == "unlink":
                    seen += settled(source)  # what nobody had open is nowhere to be found
                    path.unlink()
                else:
                    for n in range(12, 0, -1):
                        for ending in ("", ".gz"):
                            if (old := Path(f"{path}.{n}{ending}")).exists():
                                old.rename(f"{path}.{n + 1}{ending}")
                    path.rename(f"{path}.1")
                if action == "rotate late":
                    seen += settled(source)
                contents.append(b"")
                path.touch()
                os.utime(path, (step + 1, step + 1))
            elif action == "pack":
                old = Path(f"{path}.2")
                if old.exists():
                    Path(f"{old}.gz").write_bytes(gzip.compress(old.read_bytes()))
                    old.unlink()
            elif action == "read":
                seen += settled(source)
            else:
                seen += source.poll(1, 0.0)
        seen += settled(source)
    finally:
        source.close()
    expected = set()
    for content in contents:
        lines, offset = content.split(b"\n")[:-1], 0
        for line in lines:
            expected.add((log_of(lines[0]), offset, line))
            offset += len(line) + 1
    found = [(r.log, r.at.offset, r.payload) for r in seen]
    assert set(found) == expected
    if not pattern:  # a packed copy that matches comes again, at the same coordinates
        assert len(found) == len(expected)
    assert source.lost_bytes == 0
