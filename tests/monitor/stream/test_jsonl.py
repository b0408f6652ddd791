"""JSON lines: the contract of all sources; offsets are bytes, memory is bounded, and a file may grow."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from monitor.errors import SourceError
from monitor.stream.jsonl import JsonLines
from monitor.stream.record import Record
from tests.support import ROOT
from tests.support.stream.source_contract import SourceContract


class TestContract(SourceContract):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "stream.jsonl"

    def write(self, payloads: Sequence[bytes]) -> None:
        with self.path.open("ab") as file:
            file.write(b"".join(p + b"\n" for p in payloads))

    def source(self, *, until_end: bool, max_bytes: int) -> JsonLines:
        return JsonLines(str(self.path), follow=not until_end, max_bytes=max_bytes)


def read_all(source: JsonLines, limit: int = 3) -> list[Record]:
    records: list[Record] = []
    while not source.finished:
        records += source.poll(limit, 0.01)
    source.close()
    return records


def of(path: Path, content: bytes, **more: object) -> list[Record]:
    path.write_bytes(content)
    return read_all(JsonLines(str(path), **more))  # type: ignore[arg-type]


def test_offsets_are_bytes(tmp_path: Path) -> None:
    content = 'ä€\n{"a": "\U0001f600"}\nend\n'.encode()
    records = of(tmp_path / "a.jsonl", content)
    assert [r.payload for r in records] == content.splitlines()
    for record in records:
        assert record.payload is not None
        assert content[record.at.offset :].startswith(record.payload)
        assert record.size == len(record.payload)
        assert (record.at.source, record.at.partition, record.recorded) == ("a.jsonl", 0, None)


lines_of_bytes = st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=12)


@given(lines=lines_of_bytes, last=st.booleans(), limit=st.integers(1, 5), chunk=st.integers(1, 9))
def test_every_line_once_at_its_offset(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], last: bool, limit: int, chunk: int
) -> None:
    """However the reads cut the file."""
    content = b"\n".join(lines) + (b"\n" if last else b"")
    assume(not content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")))  # compressed files
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monitor.stream.jsonl_bytes.CHUNK", chunk)
        records = read_all(JsonLines(str(path), max_bytes=16), limit)
    expected = [(offset, line) for offset, line in _by_hand(content) if len(line) > 16 or line.strip()]
    assert [(r.at.offset, r.size) for r in records] == [(offset, len(line)) for offset, line in expected]
    assert [r.payload for r in records] == [line if len(line) <= 16 else None for _, line in expected]


def _by_hand(content: bytes) -> list[tuple[int, bytes]]:
    found, offset = [], 0
    for line in content.split(b"\n"):
        found.append((offset, line))
        offset += len(line) + 1
    return found


def test_blank_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    records = of(tmp_path / "a", b"\n  \na\n\r\n\tb\n\n")
    assert [(r.at.offset, r.payload) for r in records] == [(4, b"a"), (8, b"\tb")]


def test_the_last_line_needs_no_newline(tmp_path: Path) -> None:
    assert [r.payload for r in of(tmp_path / "a", b"a\nb")] == [b"a", b"b"]


def test_an_empty_file(tmp_path: Path) -> None:
    assert of(tmp_path / "a", b"") == []


@pytest.mark.parametrize(("size", "kept"), [(99, True), (100, True), (101, False)])
def test_the_size_limit_is_exact(tmp_path: Path, size: int, kept: bool) -> None:
    (first, second) = of(tmp_path / "a", b"x" * size + b"\nnext\n", max_bytes=100)
    assert first.payload == (b"x" * size if kept else None)
    assert (first.size, second.at.offset, second.payload) == (size, size + 1, b"next")


def test_an_over_size_line_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a"
    size = 24_000_000
    path.write_bytes(b"x" * size + b"\nnext\n")
    tracemalloc.start()
    try:
        (first, second) = read_all(JsonLines(str(path), max_bytes=1_000_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (first.payload, first.size, second.at.offset) == (None, size, size + 1)
    assert peak < 5_000_000


def test_lag_counts_down_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"aaaa\nbbbb\ncccc\n")
    source = JsonLines(str(path))
    lags = [source.lag]
    while not source.finished:
        source.poll(1, 0.01)
        lags.append(source.lag)
    assert lags[:4] == [15, 10, 5, 0]
    assert source.lag_unit == "bytes"
    source.close()


def test_a_followed_file_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"first\nsec")
    source = JsonLines(str(path), follow=True)
    assert [r.payload for r in source.poll(10, 0.0)] == [b"first"]
    assert source.poll(10, 0.0) == []
    assert not source.finished

    def append() -> None:
        for part in (b"ond\nthi", b"rd\n"):
            time.sleep(0.05)
            with path.open("ab") as file:
                file.write(part)

    thread = threading.Thread(target=append)
    thread.start()
    found: list[Record] = []
    until = time.monotonic() + 20
    while len(found) < 2 and time.monotonic() < until:
        found += source.poll(10, 0.2)
    thread.join()
    assert [(r.at.offset, r.payload) for r in found] == [(6, b"second"), (13, b"third")]
    assert not source.finished
    source.close()


@pytest.mark.parametrize("missing", ["nowhere/file.jsonl", "."])
def test_what_cannot_be_read_is_named(missing: str) -> None:
    with pytest.raises(SourceError, match=r"^source: cannot read .*(No such file|Is a directory)"):
        JsonLines(missing)


def test_a_name_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x\n")
    (record,) = read_all(JsonLines(str(tmp_path / "a"), name="orders"))
    assert record.at.source == "orders"


_STDIN = """
from monitor.stream.jsonl import JsonLines
source = JsonLines("-", max_bytes=20)
while not source.finished:
    for r in source.poll(2, 0.05):
        print(r.at, r.payload, r.size, source.lag, flush=True)
"""


def test_standard_input(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _STDIN], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write("ä\n\n")
    program.stdin.flush()
    # A line is there before the stream ends.
    assert program.stdout.readline() == f"stdin/0/0 {'ä'.encode()!r} 2 None\n"
    program.stdin.write("x" * 30 + "\nlast")
    program.stdin.close()
    rest = program.stdout.read()
    program.stdout.close()
    assert program.wait() == 0
    assert rest.splitlines() == ["stdin/0/4 None 30 None", "stdin/0/35 b'last' 4 None"]
