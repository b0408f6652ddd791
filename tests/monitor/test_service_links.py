"""Service links of Kubernetes are no settings; what only looks a little like one is still refused."""

from __future__ import annotations

import pytest

from monitor.errors import SettingsError
from monitor.service_links import is_service_link
from monitor.settings import load_settings, reference


def links(service: str, host: str, port: int, protocol: str = "tcp", port_name: str | None = None) -> dict[str, str]:
    """What the kubelet puts into a container for a Service, by Kubernetes' documentation of environment variables."""
    name = service.upper().replace("-", "_")
    at = f"[{host}]" if ":" in host else host
    numbered = f"{name}_PORT_{port}_{protocol.upper()}"
    found = {
        f"{name}_SERVICE_HOST": host,
        f"{name}_SERVICE_PORT": str(port),
        f"{name}_PORT": f"{protocol}://{at}:{port}",
        numbered: f"{protocol}://{at}:{port}",
        f"{numbered}_PROTO": protocol,
        f"{numbered}_PORT": str(port),
        f"{numbered}_ADDR": host,
    }
    if port_name is not None:
        found[f"{name}_SERVICE_PORT_{port_name.upper().replace('-', '_')}"] = str(port)
    return found


SERVICES = [
    links("awry", "10.96.0.7", 9464),
    links("awry-serve", "10.96.14.200", 9464, port_name="http"),
    links("awry-ingest", "fd00:10:96::7f", 4318, port_name="otlp-http"),
    links("awry-db-2", "172.30.1.1", 5432, port_name="postgres"),
    links("awry-syslog", "10.0.0.9", 514, "udp"),
    # A Service named like a setting.
    links("awry-listen", "10.96.0.8", 80),
    links("awry-port", "10.96.0.8", 80),
]


@pytest.mark.parametrize("service", SERVICES, ids=lambda found: min(found))
def test_services_of_the_namespace_change_nothing(monkeypatch: pytest.MonkeyPatch, service: dict[str, str]) -> None:
    expected = load_settings()
    for name, value in service.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == expected
    monkeypatch.setenv("AWRY_PRIVACY", "none")
    assert load_settings().privacy == "none"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWRY_PRIVCY", "none"),
        ("AWRY_PORT", "9464"),
        ("AWRY_LISTEN_PORT", "9464"),
        ("AWRY_KAFKA_PORT", "kafka:9092"),
        ("AWRY_KAFKA_PORT", "tcp://kafka:9092"),
        ("AWRY_SERVICE_HOST", "kafka"),
        ("AWRY_SERVICE_PORT", "0"),
        ("AWRY_SERVICE_PORT", "99999"),
        ("AWRY_SERVICE_PORTS", "80"),
        ("AWRY_PORT_9464_TCP_PROTO", "TCP"),
        ("AWRY_PORT_9464_TCP_ADDR", "localhost"),
        ("AWRY_PORT", "tcp://[10.96.0.7:9464"),
        ("AWRY_PORT", ""),
        ("AWRY_DATABASE_URL_SERVICE", "10.96.0.7"),
    ],
)
def test_a_misspelt_setting_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for one, given in links("awry", "10.96.0.7", 9464).items():
        monkeypatch.setenv(one, given)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"^{name}\b.*no such setting"):
        load_settings()


def test_no_setting_can_be_taken_for_a_service_link() -> None:
    values = ("10.96.0.7", "80", "tcp", "tcp://10.96.0.7:80")
    taken = [v for _, v, _, _ in reference() for value in values if is_service_link(v, value)]
    assert taken == []
