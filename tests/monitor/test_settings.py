"""Settings: flags win over the environment, that over the file; what is wrong names itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monitor.errors import SettingsError
from monitor.settings import SECRETS, Settings, load_settings, reference
from monitor.stream.wiring import cluster_of


@pytest.fixture
def toml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    monkeypatch.setenv("AWRY_CONFIG", str(path))
    return path


def test_defaults() -> None:
    found = load_settings()
    assert (found.model, found.privacy, found.source, found.mitigate) == ("SmolLM2-135M-Instruct", "sha256", "-", "off")
    assert found.database_url is None
    assert [d.name for d in found.destinations] == ["console"]


def test_flags_win_then_the_environment_then_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('privacy = "none"\nmodel = "file"\nbatch_messages = 3\n')
    assert load_settings().model == "file"
    monkeypatch.setenv("AWRY_MODEL", "environment")
    monkeypatch.setenv("AWRY_BATCH_MESSAGES", "4")
    found = load_settings(model="flag", source=None)
    assert (found.model, found.batch_messages, found.privacy, found.source) == ("flag", 4, "none", "-")


def test_awry_toml_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "awry.toml").write_text(
        'probes = ["a", "b"]\n[[destinations]]\nname = "siem"\nkind = "console"\n'
    )  # the test's folder is the current one
    found = load_settings()
    assert found.probes == ("a", "b")
    assert [d.name for d in found.destinations] == ["siem"]


def test_lists_from_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_PROBES", '["a", "b"]')
    monkeypatch.setenv("AWRY_FOLLOW", "true")
    found = load_settings()
    assert found.probes == ("a", "b")
    assert found.follow is True


BAD: list[tuple[str, Any]] = [
    ("scale", "5"),
    ("scale", "-1"),
    ("dtype", "float8"),
    ("batch_messages", "0"),
    ("batch_messages", "many"),
    ("batch_wait_seconds", "61"),
    ("token_budget", "1"),
    ("max_tokens", "31"),
    ("over_long", "cut"),
    ("max_message_bytes", "10"),
    ("privacy", "all"),
    ("mitigate", "yes"),
    ("max_new_tokens", "0"),
    ("error_from", "0"),
    ("critical_from", "0.1"),
    ("send_every_seconds", "0"),
    ("logs", "xml"),
    ("follow", "perhaps"),
    ("destinations", '[{"name": "p", "kind": "mail"}]'),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_in_the_environment_names_itself(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"AWRY_{name.upper()}", value)
    with pytest.raises(SettingsError, match=rf"^{name}") as found:
        load_settings()
    assert f"AWRY_{name.upper()}" in str(found.value)


@pytest.mark.parametrize(("name", "value"), [("privacy", "all"), ("batch_messages", 0), ("scale", "big")])
def test_a_bad_flag_or_line_of_the_file_names_itself(toml: Path, name: str, value: object) -> None:
    toml.write_text("")
    with pytest.raises(SettingsError, match=rf"^{name} "):
        load_settings(**{name: value})
    toml.write_text(f"{name} = {value!r}\n")
    with pytest.raises(SettingsError, match=rf"^{name} .*settings\.toml"):
        load_settings()


def test_several_bad_values_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_PRIVACY", "all")
    monkeypatch.setenv("AWRY_LOGS", "xml")
    with pytest.raises(SettingsError) as found:
        load_settings()
    assert [line.split()[0] for line in str(found.value).splitlines()] == ["privacy", "logs"]


def test_an_unknown_key_of_the_file_is_an_error(toml: Path) -> None:
    toml.write_text('privcy = "none"\n')
    with pytest.raises(SettingsError, match=r"^privcy \(.*settings\.toml:1\): no such setting; did you mean privacy"):
        load_settings()


def test_a_file_that_is_no_toml(toml: Path) -> None:
    toml.write_text("model = \n")
    with pytest.raises(SettingsError, match=r"settings\.toml:1: not TOML: "):
        load_settings()


def test_a_file_that_is_named_and_not_there(toml: Path) -> None:
    with pytest.raises(SettingsError, match=r"^AWRY_CONFIG: .*settings\.toml does not exist"):
        load_settings()


def test_a_list_that_is_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_PROBES", "a,b")
    with pytest.raises(SettingsError, match=r"^probes \(AWRY_PROBES\): .*JSON"):
        load_settings()


def test_no_password_in_errors_or_in_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_DATABASE_URL", "postgresql://u:geheim@h/x")
    assert "geheim" not in repr(load_settings())
    assert "geheim" not in str(load_settings())
    monkeypatch.setenv("AWRY_PRIVACY", "all")
    with pytest.raises(SettingsError) as found:
        load_settings()
    assert "geheim" not in str(found.value)


def test_the_reference_is_the_fields() -> None:
    rows = reference()
    assert sorted(r[0] for r in rows) == sorted(Settings.model_fields)
    assert [r[1] for r in rows] == [f"AWRY_{r[0].upper()}" for r in rows]
    assert all(r[3] for r in rows)
    defaults = {r[0]: r[2] for r in rows}
    assert (defaults["privacy"], defaults["destinations"], defaults["adapter"]) == ("sha256", "console", "")
    assert str(Path.home()) not in "".join(r[2] for r in rows)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().model = "other"  # type: ignore[misc]


# Secrets in files.


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that AWRY_KAFKA_SASL_PASSWORD_FILE names."""
    path = tmp_path / "password"
    monkeypatch.setenv("AWRY_KAFKA_SASL_PASSWORD_FILE", str(path))
    return path


def password() -> str | None:
    found = load_settings().kafka_sasl_password
    return found.get_secret_value() if found is not None else None


@pytest.mark.parametrize("written", [b"geheim", b"geheim\n", b"geheim\r\n"])
def test_a_secret_is_read_from_its_file(secret: Path, written: bytes) -> None:
    secret.write_bytes(written)
    assert password() == "geheim"


def test_the_environment_wins_over_a_secrets_file_and_that_over_the_settings_file(
    secret: Path, toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text('kafka_sasl_password = "toml"\n')
    secret.write_text("file")
    assert password() == "file"
    monkeypatch.setenv("AWRY_KAFKA_SASL_PASSWORD", "environment")
    assert password() == "environment"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_secrets_file_that_cannot_be_read_is_named(secret: Path, content: bytes | None) -> None:
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(SettingsError, match=r"^AWRY_KAFKA_SASL_PASSWORD_FILE: cannot read .*password \(\w+Error\)"):
        load_settings()


@pytest.mark.parametrize("name", [name for name in SECRETS if name != "destinations"])
def test_each_secret_has_a_file_and_does_not_show(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("geheim")
    monkeypatch.setenv(f"AWRY_{name.upper()}_FILE", str(tmp_path / "secret"))
    found = load_settings()
    assert getattr(found, name).get_secret_value() == "geheim"
    assert "geheim" not in repr(found) + str(found)


def test_destinations_are_read_from_a_file_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold keys and tokens, so they are a secret as a whole."""
    path = tmp_path / "destinations"
    monkeypatch.setenv("AWRY_DESTINATIONS_FILE", str(path))
    path.write_text('[{"name": "oncall", "kind": "pagerduty", "routing_key": "' + "g" * 32 + '"}]')
    (found,) = load_settings().destinations
    assert (found.name, found.routing_key.get_secret_value()) == ("oncall", "g" * 32)
    assert "g" * 32 not in repr(load_settings())
    path.write_text('[{"name": "oncall", geheim}]')
    with pytest.raises(SettingsError, match=r"^AWRY_DESTINATIONS_FILE: .*destinations is not JSON \(line 1, col"):
        load_settings()
    path.write_text('[{"name": "oncall", "kind": "pagerduty", "routing_key": "geheim"}]')
    with pytest.raises(SettingsError, match=r"^destinations\.0\.routing_key") as wrong:
        load_settings()
    assert "geheim" not in str(wrong.value)


def test_no_other_setting_has_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_MODEL_FILE", "x")
    with pytest.raises(SettingsError, match=r"^AWRY_MODEL_FILE: no such setting"):
        load_settings()


def test_a_cluster_does_not_show_its_secrets() -> None:
    settings = load_settings(
        kafka_bootstrap="h:1", kafka_sasl_username="u", kafka_sasl_password="geheim", kafka_ssl_key_password="geheim"
    )
    cluster = cluster_of(settings)
    assert (cluster.sasl_password, cluster.ssl_key_password) == ("geheim", "geheim")
    assert "geheim" not in repr(cluster) + str(cluster)
