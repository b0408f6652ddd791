"""The publisher: nothing that happens to its output slows who puts, and nothing is lost without a count."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from monitor.readings.publisher import Publisher, PublisherError, PublisherOptions
from monitor.readings.schema import Reading, loads
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, running
from tests.support import ROOT
from tests.support.stream.kafka import new_topic, wait_for
from tests.support.stream.scenario import read_all

ENGINE = "vllm 0.32.0"


def made(n: int, **more: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"kind": "final", "id": f"r{n}", "tenant": "shop", **more}


def waiting(going: threading.Event) -> Callable[[], None]:
    """Nothing, once it may go on."""

    def make() -> None:
        going.wait(30)

    return make


@contextmanager
def publishing(out: Path | str, **options: Any) -> Iterator[Publisher]:
    publisher = Publisher(PublisherOptions(str(out), ENGINE, **options))
    try:
        yield publisher
    finally:
        publisher.close()


def records(path: Path) -> list[Reading]:
    return [loads(line) for line in path.read_bytes().splitlines()]


def test_records_are_numbered_and_end_with_the_last_word(tmp_path: Path) -> None:
    out = tmp_path / "readings.jsonl"
    with publishing(out, model="served") as publisher:
        assert all(publisher.put(made(n)) for n in range(500))
    found = records(out)
    assert [each.sequence for each in found] == list(range(502))
    assert [each.id for each in found if each.kind == "final"] == [f"r{n}" for n in range(500)]
    assert {(each.instance, each.engine, each.model) for each in found} == {(publisher.instance, ENGINE, "served")}
    assert [each.kind for each in found if each.kind != "final"] == ["heartbeat"] * 2
    assert [each.closed for each in found] == [False] * 501 + [True]
    assert out.stat().st_mode & 0o777 == 0o600
    assert publisher.snapshot().published == 502
    assert not publisher.put(made(1))


def test_silence_is_not_nothing(tmp_path: Path) -> None:
    out = tmp_path / "readings.jsonl"
    with publishing(out, heartbeat_seconds=0.05):
        wait_for(lambda: len(records(out)) > 4)
    assert {each.kind for each in records(out)} == {"heartbeat"}


def test_what_does_not_fit_is_dropped_and_told(tmp_path: Path) -> None:
    out, going = tmp_path / "readings.jsonl", threading.Event()
    with publishing(out, queue_records=10) as publisher:
        # The thread is busy with one reading, and the queue fills.
        publisher.put(waiting(going))
        wait_for(lambda: publisher.snapshot().queue == 0)
        taken = [publisher.put(made(n)) for n in range(25)]
        assert taken == [True] * 10 + [False] * 15
        assert publisher.snapshot().dropped == 15
        going.set()
    found = records(out)
    assert [each.id for each in found if each.kind == "final"] == [f"r{n}" for n in range(10)]
    # No number is missing: what was dropped never had one.
    assert [each.sequence for each in found] == list(range(12))
    assert found[-1].dropped == 15


def test_the_queue_is_bounded_by_bytes_too(tmp_path: Path) -> None:
    going = threading.Event()
    with publishing(tmp_path / "o", queue_bytes=100) as publisher:
        publisher.put(waiting(going))
        wait_for(lambda: publisher.snapshot().queue == 0)
        # A single one is taken however large it is.
        assert [publisher.put(made(n), 90) for n in range(3)] == [True, False, False]
        going.set()
        wait_for(lambda: publisher.snapshot().queue == 0)
        assert publisher.put(made(9), 1000)


def test_a_reading_that_cannot_be_made_costs_one(tmp_path: Path) -> None:
    out = tmp_path / "o"
    with publishing(out) as publisher:
        publisher.put(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        publisher.put(lambda: {"kind": "final"})
        publisher.put(lambda: None)
        publisher.put(made(1))
        wait_for(lambda: publisher.snapshot().published == 2)
        counted = publisher.snapshot()
    assert (counted.failed, counted.dropped) == (2, 2)
    assert [(each.id, each.dropped) for each in records(out)][-2:] == [("r1", 2), (None, 2)]


def test_arithmetic_is_done_in_the_publishers_thread(tmp_path: Path) -> None:
    seen: list[str] = []
    with publishing(tmp_path / "o") as publisher:
        publisher.put(lambda: seen.append(threading.current_thread().name))
        wait_for(lambda: seen)
    assert seen == ["awry-readings"]


def test_a_line_that_a_killed_engine_has_cut_swallows_no_other(tmp_path: Path) -> None:
    out = tmp_path / "o"
    out.write_bytes(b'{"awry_reading": 1, "eng')
    with publishing(out) as publisher:
        publisher.put(made(1))
    lines = out.read_bytes().splitlines()
    assert lines[0] == b'{"awry_reading": 1, "eng'
    assert [loads(line).id for line in lines[1:]] == [None, "r1", None]


def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    """A file system of one page: what does not fit stays in the queue, and the lines are whole when there is room."""
    code = (
        "import resource, signal, sys, time\n"
        "from monitor.readings.publisher import Publisher, PublisherOptions\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))\n"
        "publisher = Publisher(PublisherOptions(sys.argv[1], 'vllm'))\n"
        "begun = time.monotonic()\n"
        "for n in range(200):\n"
        "    publisher.put(lambda n=n: {'kind': 'final', 'id': f'r{n}'})\n"
        "while 'cannot write' not in str(publisher.snapshot().trouble):\n"
        "    time.sleep(0.01)\n"
        "assert publisher.snapshot().published < 100\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "assert publisher.close(30), publisher.snapshot()\n"
    )
    out = tmp_path / "o"
    subprocess.run([sys.executable, "-c", code, str(out)], check=True, timeout=60, cwd=ROOT)
    found = records(out)
    assert [each.sequence for each in found] == list(range(202))
    assert found[-1].closed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"out": ""}, "out: missing"),
        ({"out": "/nowhere/readings.jsonl"}, "out: there is no folder /nowhere"),
        ({"out": "/"}, "out: / is a folder"),
        ({"out": "x" * 300}, "out: cannot write xxx"),
        ({"out": "readings.jsonl", "kafka": {"bootstrap": "127.0.0.1:1"}}, "kafka: set, and out is a file"),
        ({"out": "kafka:"}, "out: kafka: needs the name of a topic"),
        ({"out": "kafka:t"}, "kafka: bootstrap is missing"),
        ({"out": "kafka:t", "kafka": {"bootstrap": "127.0.0.1:1", "sasl": "x"}}, "kafka: sasl not known; there are"),
        ({"out": "kafka:t", "kafka": {"bootstrap": "b:1", "ssl_ca_file": "/nowhere"}}, "cannot read /nowhere"),
        (
            {"out": "kafka:t", "kafka": {"bootstrap": "b:1", "sasl_password_file": "/nowhere"}},
            "kafka: sasl_password_file cannot be read",
        ),
        (
            {"out": "kafka:t", "kafka": {"bootstrap": "b:1", "sasl_password": "x", "sasl_password_file": "y"}},
            "are both set",
        ),
        ({"out": "o", "queue_records": 0}, "queue_records: 0 is no number over 0"),
        ({"out": "o", "heartbeat_seconds": "1"}, "heartbeat_seconds: '1' is no number over 0"),
        ({"out": "o", "engine": " "}, "engine: missing"),
    ],
)
def test_what_is_wrong_at_the_start_is_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(PublisherError, match=said) as found:
        Publisher(PublisherOptions(**{"engine": ENGINE, **options}))
    assert "\n" not in str(found.value)


def test_a_file_is_one_engines(tmp_path: Path) -> None:
    out = tmp_path / "o"
    with (
        publishing(out),
        pytest.raises(PublisherError, match=r"another process writes to .*; give each engine a file of its own"),
    ):
        Publisher(PublisherOptions(str(out), ENGINE))
    with out.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_no_broker_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.stream.kafka.client._BOOTSTRAP_MS", 500)
    away = {"bootstrap": "127.0.0.1:1"}
    with pytest.raises(PublisherError, match=r"no broker answers at 127\.0\.0\.1:1"):
        Publisher(PublisherOptions("kafka:t", ENGINE, kafka=away))
    publisher = Publisher(PublisherOptions("kafka:t", ENGINE, kafka=away, wait_for_broker=True, queue_records=5))
    wait_for(lambda: publisher.snapshot().trouble)
    # Who puts is never kept waiting, and the memory is bounded.
    assert [publisher.put(made(n)) for n in range(8)].count(True) == 5
    assert not publisher.close(0.1)


@pytest.fixture(scope="module")
def own_broker(jar_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One to be killed."""
    with running(Broker(tmp_path_factory.mktemp("broker"), jar_folder=jar_folder)) as started:
        yield started


@pytest.mark.timeout(300)
def test_a_broker_that_is_away_slows_nobody(own_broker: Broker) -> None:
    cluster = Cluster(own_broker.address)
    topic = new_topic(cluster)
    with publishing(f"kafka:{topic}", kafka={"bootstrap": own_broker.address}, heartbeat_seconds=0.5) as publisher:
        for n in range(100):
            publisher.put(made(n))
        wait_for(lambda: publisher.snapshot().published > 100)
        own_broker.kill()
        longest = 0.0
        for n in range(100, 1100):
            begun = time.monotonic()
            assert publisher.put(made(n))
            longest = max(longest, time.monotonic() - begun)
            time.sleep(0.002)
        # A put waits for the lock of a counter, not for a socket.
        assert longest < 1
        own_broker.start()
        wait_for(lambda: publisher.snapshot().queue == 0, 120)
    found = [loads(record.value) for record in read_all(cluster, topic)]
    numbers = {each.sequence for each in found}
    assert numbers == set(range(max(numbers) + 1))
    assert {each.id for each in found if each.kind == "final"} == {f"r{n}" for n in range(1100)}
    assert [each for each in found if each.closed]
    # Of one tenant, in order, whatever was sent again.
    firsts = list(dict.fromkeys(each.id for each in found if each.kind == "final"))
    assert firsts == [f"r{n}" for n in range(1100)]


@pytest.mark.timeout(120)
def test_a_topic_that_is_missing_and_a_record_that_is_too_large(cluster: Cluster) -> None:
    bootstrap = {"bootstrap": cluster.bootstrap}
    with pytest.raises(PublisherError, match="out: there is no topic nowhere at"):
        Publisher(PublisherOptions("kafka:nowhere", ENGINE, kafka=bootstrap))
    topic = new_topic(cluster, 1, max_message_bytes="4000")
    parts = [0.123456789] * 2000
    probe = {"name": "p", "digest": "ab" * 16, "value": 0.1, "tokens": 1, "parts": parts}
    with publishing(f"kafka:{topic}", kafka=bootstrap) as publisher:
        for n in range(3):
            publisher.put(made(n, probes=[probe] if n == 1 else []))
        wait_for(lambda: publisher.snapshot().refused, 60)
    found = [loads(record.value) for record in read_all(cluster, topic)]
    assert {each.id for each in found if each.kind == "final"} == {"r0", "r2"}
    # It has a number, so that whoever reads sees the hole.
    assert {each.sequence for each in found} == {0, 1, 3, 4}


def test_the_thread_ends_with_the_process(tmp_path: Path) -> None:
    """A publisher that nobody closes keeps no process alive."""
    code = (
        "import sys\n"
        "from monitor.readings.publisher import Publisher, PublisherOptions\n"
        "publisher = Publisher(PublisherOptions(sys.argv[1], 'vllm'))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "o")], cwd=ROOT, timeout=30, env=dict(os.environ))
    assert ran.returncode == 0
