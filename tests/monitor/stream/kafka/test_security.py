"""SASL and TLS against a real broker that asks for both: the right login gets in, a wrong one is told what was wrong,
and no secret is in an error or a repr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from monitor.errors import ClusterError
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, free_port, running
from monitor.stream.kafka.source import KafkaSource
from monitor.stream.sinks import Line
from monitor.stream.sinks.kafka import TopicSink, connect_producer
from tests.support.stream.kafka import read, unique

SECRET = "s3cret-of-the-test"


@pytest.fixture(scope="module")
def secured(jar_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker with a SASL_SSL listener beside its plain one; the cluster as its user sees it."""
    folder = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    keys = folder / "broker.pem"
    keys.write_bytes(pem + b"".join(c.bytes() for c in issued.cert_chain_pems))
    trusted = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    plain, secure, controller = free_port(), free_port(), free_port()
    listeners = f"PLAINTEXT://127.0.0.1:{plain},SECURE://127.0.0.1:{secure}"
    properties = {
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": listeners,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT",
        "listener.name.secure.ssl.keystore.type": "PEM",
        "listener.name.secure.ssl.keystore.location": str(keys),
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secure.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule "
        f'required user_awry="{SECRET}";',
    }
    with running(Broker(folder / "kafka", port=plain, jar_folder=jar_folder, properties=properties)):
        yield Cluster(
            f"127.0.0.1:{secure}",
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            sasl_username="awry",
            sasl_password=SECRET,
            ssl_ca_file=trusted,
        )


def test_the_right_login_reads_and_writes(secured: Cluster) -> None:
    topic = unique("topic")
    secured.create_topics([topic], 1)
    with closing(connect_producer(secured)) as producer:
        TopicSink(producer, topic, "verdicts_out").write([Line({"id": "m1"}, "m1")])
    source = KafkaSource(secured, [topic], unique("group"), start_from="earliest")
    with closing(source):
        assert [r.payload for r in read(source, 1)] == [b'{"id":"m1"}']


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sasl_password": "another"}, "protocol SASL_SSL, user awry.*certificate or password"),
        ({"ssl_ca_file": None}, "kafka_bootstrap: no broker answers"),
        ({"security_protocol": "PLAINTEXT"}, "kafka_bootstrap: no broker answers"),
    ],
)
def test_a_wrong_setting_is_named(secured: Cluster, change: dict[str, object], said: str) -> None:
    with pytest.raises(ClusterError, match=said) as raised:
        replace(secured, **change).topics()  # type: ignore[arg-type]
    assert SECRET not in str(raised.value)
    assert "another" not in str(raised.value)


def test_no_secret_is_shown(secured: Cluster) -> None:
    assert SECRET not in repr(secured)
    assert secured.options()["sasl_plain_password"] == SECRET
