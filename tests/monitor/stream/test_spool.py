"""The spool: what was acknowledged is read once it is killed at any point, and no coordinates are given twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import SourceError
from monitor.settings import Settings
from monitor.stream.parse import Parser, read_messages
from monitor.stream.record import Record
from monitor.stream.spool import SpoolFullError, SpoolSource, SpoolWriter, decode_line, encode_line
from monitor.stream.wiring import check_source, open_source
from tests.support import ROOT
from tests.support.stream.source_contract import SourceContract, drain, take

LIMIT = 1 << 30


class TestContract(SourceContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "spool"

    def write(self, payloads: Sequence[bytes]) -> None:
        writer = SpoolWriter(self.folder, LIMIT, segment_bytes=300)
        writer.append([encode_line(p) for p in payloads])
        writer.close()

    def source(self, *, until_end: bool, max_bytes: int) -> SpoolSource:
        return SpoolSource(self.folder, max_bytes=max_bytes, follow=not until_end)


def test_a_tenants_flood_does_not_delay_anothers_first(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, LIMIT, segment_bytes=2000)
    of = b'{"tenant": "%s", "prompt": "hello"}'
    writer.append([encode_line(of % b"flood") for _ in range(300)])
    writer.append([encode_line(of % b"shop")])
    writer.close()
    source = SpoolSource(tmp_path, follow=False, read=lambda record: read_messages(record, Parser()))
    first = source.poll(4, 1.0)
    assert [record.tenant for record in first] == ["flood", "shop", "flood", "flood"]
    assert {tenant: each.records for tenant, each in source.waiting.items()} == {"flood": 297}
    # Stored out of order: only segments of which everything is stored may go.
    source.commit(first[1:])
    source.close()
    assert len(read_all(tmp_path)) >= 298


def read_all(folder: Path, *, commit: bool = False) -> list[Record]:
    source = SpoolSource(folder, follow=False)
    records: list[Record] = []
    while not source.finished:
        batch = source.poll(7, 0.05)
        records += batch
        if commit:
            source.commit(batch)
    source.close()
    return records


def segments(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("*.jsonl"))


def numbered(*numbers: int) -> list[bytes]:
    return [encode_line(b"%d" % n) for n in numbers]


header_values = st.binary(max_size=12) | st.text(max_size=6).map(lambda t: t.encode("utf-8", "replace"))
names = st.sampled_from(["a", "payload", "payload_base64", "headers", 'x", "payload": "'])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
payloads = st.binary(max_size=40) | json_values.map(lambda v: json.dumps(v).encode()) | st.just(b'1}, "payload": 2')


@given(payload=payloads, headers=st.lists(st.tuples(names, header_values), max_size=4))
def test_a_message_comes_back_byte_for_byte(payload: bytes, headers: list[tuple[str, bytes]]) -> None:
    line = encode_line(payload, headers, datetime(2026, 8, 1, tzinfo=UTC))
    assert b"\n" not in line
    assert isinstance(json.loads(line), dict)
    read = decode_line(line)
    assert read.payload == payload
    assert sorted(read.headers) == sorted(headers)
    assert {n: [v for m, v in read.headers if m == n] for n, _ in headers} == {
        n: [v for m, v in headers if m == n] for n, _ in headers
    }
    assert read.received == datetime(2026, 8, 1, tzinfo=UTC)


def test_json_stays_readable_in_the_spool() -> None:
    assert json.loads(encode_line(b'{"prompt": "\xc3\xa4"}', [("ce_id", b"7")])) == {
        "headers": {"ce_id": "7"},
        "payload": {"prompt": "ä"},
    }


def test_a_line_by_another_hand() -> None:
    read = decode_line(b'{"payload":{"prompt":"a"},"headers":{"ce_id":"7"}}')
    assert (json.loads(read.payload), read.headers, read.received) == ({"prompt": "a"}, (("ce_id", b"7"),), None)


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"{}", b'{"payload_base64": "?"}', b'{"headers": 1, "payload": 2}', b"\xff"]
)
def test_what_is_no_line_of_a_spool(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        decode_line(line)


def test_a_broken_line_is_a_record_and_the_rest_is_read(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, LIMIT)
    writer.append([b"no json", *numbered(1)])
    assert [r.payload for r in read_all(tmp_path)] == [b"no json", b"1"]
    writer.close()


def test_headers_and_time_come_out_as_from_kafka(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, LIMIT)
    received = datetime(2026, 8, 1, 12, tzinfo=UTC)
    writer.append([encode_line(b"{}", [("ce_id", b"7"), ("raw", b"\xff")], received)])
    source = SpoolSource(tmp_path)
    (record,) = take(source, 1)
    assert record.headers == (("ce_id", b"7"), ("raw", b"\xff"))
    assert (record.recorded, source.oldest) == (received, received)
    source.commit([record])
    assert source.oldest is None
    source.close()
    writer.close()


def test_segments_go_once_they_are_stored_and_another_is_begun(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, LIMIT, segment_bytes=100)
    for n in range(20):
        writer.append(numbered(n))
    before = segments(tmp_path)
    assert len(before) > 3
    source = SpoolSource(tmp_path)
    records = take(source, 20)
    source.poll(1, 0.0)
    assert segments(tmp_path) == before  # nothing is stored
    source.commit(records[:-1])
    source.poll(1, 0.0)
    assert segments(tmp_path) == before[-1:]
    source.commit(records[-1:])
    assert segments(tmp_path) == before[-1:]  # still written to
    writer.roll()
    source.poll(1, 0.3)
    assert segments(tmp_path) != before[-1:]
    assert source.lag == 0
    writer.append(numbered(20))
    assert [r.payload for r in take(source, 1)] == [b"20"]
    source.close()
    writer.close()


def test_coordinates_are_never_given_twice(tmp_path: Path) -> None:
    """Though all segments are deleted between, and writers come and go."""
    seen: list[tuple[str, int, int, str | None]] = []
    for n in range(5):
        writer = SpoolWriter(tmp_path, LIMIT, segment_bytes=60)
        writer.append(numbered(n, n + 100))
        writer.close()
        seen += [(r.at.source, r.at.partition, r.at.offset, r.log) for r in read_all(tmp_path, commit=True)]
    assert len(seen) == len(set(seen)) == 10
    assert {(s, log) for s, _, _, log in seen} == {("ingest", (tmp_path / "id").read_text())}
    assert len(segments(tmp_path)) == 1


def test_what_is_not_committed_comes_again_at_the_same_place(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, LIMIT, segment_bytes=100)
    for n in range(12):
        writer.append(numbered(n))
    source = SpoolSource(tmp_path)
    first = take(source, 12)
    source.commit(first[:5])
    source.close()
    again = read_all(tmp_path)
    assert again == first[len(first) - len(again) :]
    assert {r.payload for r in again} >= {b"%d" % n for n in range(5, 12)}
    writer.close()


def test_half_a_line_of_a_crash_is_dropped_and_counted(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, LIMIT)
    writer.append(numbered(1))
    with (tmp_path / segments(tmp_path)[-1]).open("ab") as file:
        file.write(b'{"headers": {}, "payl')
    source = SpoolSource(tmp_path)
    assert [r.payload for r in take(source, 1)] == [b"1"]
    assert source.poll(5, 0.2) == []
    assert source.dropped_lines == 0  # it may be in the middle of being written
    writer.close()
    second = SpoolWriter(tmp_path, LIMIT)
    second.append(numbered(2))
    assert [r.payload for r in take(source, 1)] == [b"2"]
    assert source.dropped_lines == 1
    source.close()
    second.close()


def test_a_full_spool_refuses_until_it_is_read(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, 2000, segment_bytes=1 << 20)
    acknowledged: list[int] = []

    def fill() -> None:
        for n in range(1000):
            writer.append(numbered(n))
            acknowledged.append(n)

    with pytest.raises(SpoolFullError, match=r"holds \d+ of at most 2000 bytes"):
        fill()
    written = len(acknowledged)
    assert sum(p.stat().st_size for p in tmp_path.glob("*.jsonl")) <= 2000
    assert [r.payload for r in read_all(tmp_path, commit=True)] == [b"%d" % n for n in range(written)]
    time.sleep(0.1)
    writer.append(numbered(written))
    assert written > 30
    assert [r.payload for r in read_all(tmp_path)] == [b"%d" % written]
    writer.close()


def test_a_full_disk_is_told_and_what_was_acknowledged_stays() -> None:
    """Files are limited to 4 KiB in the process, which stands for a full disk."""
    program = """
import resource, signal, sys, pathlib, tempfile
from monitor.stream.spool import SpoolError, SpoolSource, SpoolWriter, encode_line
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = pathlib.Path(tempfile.mkdtemp())
writer = SpoolWriter(folder, 1 << 30)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
acknowledged, refused = [], 0
for n in range(200):
    try:
        writer.append([encode_line(b'"%03d%s"' % (n, b"x" * 100))])
        acknowledged.append(n)
    except SpoolError:
        refused += 1
writer.close()
source = SpoolSource(folder, follow=False)
read = []
while not source.finished:
    read += [int(r.payload[1:4]) for r in source.poll(10, 0.1)]
assert refused > 1, refused
assert read == acknowledged, (read, acknowledged)
assert source.dropped_lines == refused, source.dropped_lines
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)


def test_many_callers_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SpoolWriter(tmp_path, LIMIT, segment_bytes=4000)
    syncs = []
    real = os.fdatasync

    def counting(number: int) -> None:
        syncs.append(number)
        time.sleep(0.002)
        real(number)

    monkeypatch.setattr(os, "fdatasync", counting)

    def call(caller: int) -> None:
        for n in range(20):
            writer.append(numbered(caller * 1000 + n))

    callers = [threading.Thread(target=call, args=(c,)) for c in range(16)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    writer.close()
    found = [int(r.payload or b"") for r in read_all(tmp_path)]
    assert sorted(found) == sorted(c * 1000 + n for c in range(16) for n in range(20))
    for caller in range(16):
        own = [n for n in found if n // 1000 == caller]
        assert own == sorted(own)
    assert len(syncs) < 320 / 3


def test_a_second_writer_has_its_own_number_and_a_second_reader_is_refused(tmp_path: Path) -> None:
    first, second = SpoolWriter(tmp_path, LIMIT), SpoolWriter(tmp_path, LIMIT)
    assert (first.writer, second.writer) == (0, 1)
    first.append(numbered(1))
    second.append(numbered(2))
    source = SpoolSource(tmp_path)
    records = take(source, 2)
    assert {(r.at.partition, r.payload) for r in records} == {(0, b"1"), (1, b"2")}
    with pytest.raises(SourceError, match="another worker reads the spool"):
        SpoolSource(tmp_path)
    source.close()
    first.close()
    third = SpoolWriter(tmp_path, LIMIT)
    assert third.writer == 0
    third.close()
    second.close()


def test_a_line_with_a_newline_is_refused(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, LIMIT)
    with pytest.raises(ValueError, match="newline"):
        writer.append([b"{}\n{}"])
    writer.append([])
    writer.close()
    assert read_all(tmp_path) == []


_INGEST = """
import pathlib, sys, threading
from monitor.stream.spool import SpoolWriter, encode_line
writer = SpoolWriter(pathlib.Path(sys.argv[1]), 1 << 30, segment_bytes=2000)
lock = threading.Lock()
def call(caller):
    n = 0
    while True:
        name = f"{sys.argv[2]}-{caller}-{n}"
        writer.append([encode_line(b'"%s"' % name.encode())])
        with lock:
            sys.stdout.write(name + "\\n")
            sys.stdout.flush()
        n += 1
for c in range(4):
    threading.Thread(target=call, args=(c,)).start()
"""


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    source = SpoolSource(tmp_path / "spool")
    found: list[Record] = []
    acknowledged: list[str] = []
    for life in range(6):
        program = subprocess.Popen(
            [sys.executable, "-c", _INGEST, str(tmp_path / "spool"), str(life)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert program.stdout is not None
        acknowledged += [program.stdout.readline().strip() for _ in range(5)]
        until = time.monotonic() + 0.05 + life * 0.03
        while time.monotonic() < until:
            batch = source.poll(50, 0.01)
            found += batch
            source.commit(batch)
        program.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in program.stdout.read().split("\n")[:-1]]
        program.stdout.close()
        program.wait()
    source.close()
    last = SpoolSource(tmp_path / "spool", follow=False)
    found += [r for batch in drain(last) for r in batch]
    last.close()
    by_place = {r.at: r.payload for r in found}
    assert all(by_place[r.at] == r.payload for r in found)
    texts = [json.loads(p or b"") for p in by_place.values()]
    assert set(acknowledged) <= set(texts)
    assert len(texts) == len(set(texts))
    assert len(acknowledged) > 20


def test_the_settings_open_it(tmp_path: Path) -> None:
    settings = Settings(source="spool", state_dir=tmp_path, max_message_bytes=1024)
    check_source(settings)
    source = open_source(settings)
    writer = SpoolWriter(tmp_path / "spool", LIMIT)
    writer.append([encode_line(b'"' + b"x" * 1023 + b'"'), *numbered(1)])
    records = take(source, 2)
    assert [(r.at.source, r.payload, r.size) for r in records] == [("ingest", None, 1025), ("ingest", b"1", 1)]
    assert not source.finished
    source.close()
    writer.close()
    assert (tmp_path / "spool").stat().st_mode & 0o77 == 0
