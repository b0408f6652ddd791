"""JSON lines in gzip and zstd: told by the first bytes, bounded in memory, and never silently cut off."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from monitor.errors import SourceError
from monitor.stream.jsonl import JsonLines
from monitor.stream.record import Record
from tests.support import ROOT


def _zstd_stream(data: bytes) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


Pack = Callable[[bytes], bytes]
PACK: dict[str, Pack] = {
    "gzip": gzip.compress,
    "zstd": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    "zstd without a size": _zstd_stream,
}
packed = pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
# Does not shrink much, so that a cut leaves something to read.
RANDOM = random.Random(7)
LINES = [b'{"id": "%d", "prompt": "%s"}' % (n, RANDOM.randbytes(60).hex().encode()) for n in range(6000)]
CONTENT = b"\n".join(LINES) + b"\n"


def read_all(path: Path | str, **more: object) -> list[Record]:
    source = JsonLines(str(path), **more)  # type: ignore[arg-type]
    records: list[Record] = []
    try:
        while not source.finished:
            records += source.poll(100, 0.05)
    finally:
        source.close()
    return records


def until_error(path: Path) -> tuple[list[Record], str]:
    source, records = JsonLines(str(path)), []
    with pytest.raises(SourceError) as error:  # noqa: PT012
        while not source.finished:
            records += source.poll(100, 0.05)
    source.close()
    return records, str(error.value)


@packed
def test_a_packed_file_is_the_same_log_at_the_same_offsets(tmp_path: Path, pack: Pack) -> None:
    """By its content, whatever its name is."""
    (tmp_path / "a.jsonl").write_bytes(CONTENT)
    (tmp_path / "b.jsonl").write_bytes(pack(CONTENT))
    plain = read_all(tmp_path / "a.jsonl", name="x")
    assert [r.payload for r in plain] == LINES
    assert read_all(tmp_path / "b.jsonl", name="x") == plain


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_packing_keeps_the_name(tmp_path: Path, ending: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"one\n")
    (tmp_path / f"a.jsonl.{ending}").write_bytes(PACK["gzip" if ending == "gz" else "zstd"](b"one\n"))
    assert read_all(tmp_path / f"a.jsonl.{ending}") == read_all(tmp_path / "a.jsonl")


@packed
def test_members_and_padding(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "a"
    path.write_bytes(pack(b"one\ntw") + pack(b"") + pack(b"o\n") + pack(b"three"))
    assert [(r.at.offset, r.payload) for r in read_all(path)] == [(0, b"one"), (4, b"two"), (8, b"three")]


def test_gzip_may_be_padded_and_zstd_begin_with_a_skipped_frame(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(b"one\n") + bytes(600))
    (tmp_path / "b").write_bytes(b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + PACK["zstd"](b"one\n"))
    assert [r.payload for r in read_all(tmp_path / "a")] == [b"one"]
    assert [r.payload for r in read_all(tmp_path / "b")] == [b"one"]


@packed
@pytest.mark.parametrize("left", [0.97, 0.5, 0.0001])
def test_a_cut_off_file_is_read_as_far_as_it_goes_and_named(tmp_path: Path, pack: Pack, left: float) -> None:
    data = pack(CONTENT)
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(data[: max(6, int(len(data) * left))])
    records, said = until_error(path)
    assert [r.payload for r in records] == LINES[: len(records)]
    assert len(records) >= (left - 0.25) * len(LINES)
    assert f"{path}" in said
    assert "cut off" in said
    assert f"{len(records)} lines were read" in said


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_corrupt_place(tmp_path: Path, kind: str) -> None:
    data = bytearray(PACK[kind](CONTENT))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    path = tmp_path / "bad"
    path.write_bytes(data)
    records, said = until_error(path)
    assert str(path) in said
    assert "corrupt" in said
    assert [r.payload for r in records[: len(LINES) // 4]] == LINES[: len(LINES) // 4]


def test_a_checksum_that_is_wrong_is_told_after_the_content(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"one\ntwo\n"))
    data[-8] ^= 1
    (tmp_path / "a").write_bytes(data)
    records, said = until_error(tmp_path / "a")
    assert [r.payload for r in records] == [b"one", b"two"]
    assert "corrupt gzip data" in said


def test_one_bad_file_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_bytes(gzip.compress(b"one\n")[:-3])
    (tmp_path / "2.jsonl").write_bytes(b"two\n")
    source, records = JsonLines(f"{tmp_path}/1.jsonl,{tmp_path}/2.jsonl"), []
    with pytest.raises(SourceError, match=r"1\.jsonl") as error:  # noqa: PT012
        while not source.finished:
            records += source.poll(100, 0.05)
    assert [r.payload for r in records] == [b"one", b"two"]
    assert "2.jsonl" not in str(error.value)
    assert "1.jsonl" in (source.trouble or "")
    source.close()


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("line", [b"", b"\n", b"a\n"], ids=["one line", "blank lines", "short lines"])
def test_a_bomb_costs_no_memory(tmp_path: Path, kind: str, line: bytes) -> None:
    size = 100 << 20
    block = (line * (1 << 20))[: 1 << 20] if line else b"x" * (1 << 20)
    path = tmp_path / "bomb"
    if kind == "gzip":
        packer = zlib.compressobj(9, wbits=31)
        path.write_bytes(b"".join(packer.compress(block) for _ in range(size >> 20)) + packer.flush())
    else:
        stream = zstandard.ZstdCompressor(level=1).compressobj()
        path.write_bytes(b"".join(stream.compress(block) for _ in range(size >> 20)) + stream.flush())
    source = JsonLines(str(path), max_bytes=1 << 20)
    tracemalloc.start()
    try:
        count = 0
        while not source.finished and count < 50_000:
            count += len(source.poll(64, 0.05))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        source.close()
    assert peak < 40 << 20
    if line == b"a\n":
        assert count >= 50_000
    else:
        assert count == (0 if line else 1)


def test_a_packed_file_that_is_still_written_is_followed(tmp_path: Path) -> None:
    """As a rotated file is, while it is packed."""
    data = gzip.compress(CONTENT)
    path = tmp_path / "a.gz"
    records: list[Record] = []
    source = JsonLines(str(tmp_path / "*.gz"), follow=True)
    for start in range(0, len(data), 100_000):
        with path.open("ab") as file:
            file.write(data[start : start + 100_000])
        records += source.poll(10_000, 0.4)
    records += source.poll(10_000, 0.4)
    assert [r.payload for r in records] == LINES
    assert source.trouble is None
    assert source.lag == 0
    source.close()


def test_a_corrupt_file_does_not_stop_what_is_followed_beside_it(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"one\n"))
    data[-8] ^= 1
    (tmp_path / "1").write_bytes(data)
    (tmp_path / "2").write_bytes(b"two\n")
    source = JsonLines(str(tmp_path / "[12]"), follow=True)
    records = source.poll(3, 0.4)
    assert sorted(r.payload or b"" for r in records) == [b"one", b"two"]
    assert str(tmp_path / "1") in (source.trouble or "")
    with (tmp_path / "2").open("ab") as file:
        file.write(b"more\n")
    assert [r.payload for r in source.poll(1, 5)] == [b"more"]
    source.close()


_STDIN = """
from monitor.stream.jsonl import JsonLines
source = JsonLines("-")
while not source.finished:
    for r in source.poll(2, 0.05):
        print(r.at, r.payload, r.log, flush=True)
"""


@packed
def test_packed_standard_input(tmp_path: Path, pack: Pack) -> None:
    (tmp_path / "a").write_bytes(b"one\ntwo\n")
    log = read_all(tmp_path / "a")[0].log
    done = subprocess.run(
        [sys.executable, "-c", _STDIN], cwd=ROOT, input=pack(b"one\ntwo\n"), capture_output=True, check=True
    )
    assert done.stdout.decode().splitlines() == [f"stdin/0/0 b'one' {log}", f"stdin/0/4 b'two' {log}"]


@pytest.mark.parametrize("first", [b"\x1f", b"(", b"P", b"(\xb5"])
def test_a_first_byte_as_of_a_packed_file(tmp_path: Path, first: bytes) -> None:
    (tmp_path / "a").write_bytes(first)
    assert [r.payload for r in read_all(tmp_path / "a")] == [first]
    with (tmp_path / "a").open("ab") as file:
        file.write(b"!\n")
    assert [r.payload for r in read_all(tmp_path / "a")] == [first + b"!"]


def test_standard_input_packed_and_slow_gives_all_that_came() -> None:
    """Nothing waits for more input while what came is not given yet."""
    program = subprocess.Popen(
        [sys.executable, "-c", _STDIN], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False
    )
    assert program.stdin is not None
    assert program.stdout is not None
    packer = zlib.compressobj(wbits=31)
    lines = [b"%07d" % n for n in range(50_000)]
    os.write(program.stdin.fileno(), packer.compress(b"\n".join(lines) + b"\n") + packer.flush(zlib.Z_SYNC_FLUSH))
    for line in lines:
        assert line in program.stdout.readline()
    program.stdin.write(packer.flush())
    program.stdin.close()
    assert program.stdout.read() == b""
    program.stdout.close()
    assert program.wait() == 0
