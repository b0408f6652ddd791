"""`awry config`: every fault with its place and fix, the values that count with their places, and no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from monitor.config.show import shown_value
from monitor.settings import Settings, load_settings, reference
from tests.support.cli import invoke, message_of, output_of

CANARY = "geheim"

WRONG = """\
privcy = "none"
batch_messages = "many"
rules_file = "rules.toml"
kafka_bootstrap = "broker:9092,broker"
kafka_security_protocol = "SASL_SSL"
kafka_ssl_ca_file = "no-such.pem"
judge_url = "https://user:geheim@judge.example/v1"
source = "nothing.jsonl"
format = "xml"
model = "./nowhere"
listen = "everywhere"
start_from = "yesterday"
verdicts_out = "no/such/folder/v.jsonl"

[mapping]
prompt = "a.b"
idd = "x"
tenant = "foo("

[[destinations]]
name = "hook"
kind = "webhook"
url = "https://x.example/geheim"
secret = "whsec_geheim"

[[destinations]]
name = "siem"
kind = "file"
path = "no/such/siem.jsonl"
"""
RULES = '[[threshold]]\nname = "a"\ncolour = 1\n[[rate]]\nname = "b"\n'


def faults(*arguments: str | Path) -> list[dict[str, Any]]:
    done = invoke("config", "check", *arguments, "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.exit_code == (1 if found else 0)
    assert CANARY not in done.output
    return found


def places(found: list[dict[str, Any]]) -> dict[str | None, Any]:
    """Where each setting's fault is: its line of awry.toml, or the variable."""
    return {each["setting"]: each["environment"] or each["line"] for each in found}


def test_every_fault_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "awry.toml").write_text(WRONG)
    (tmp_path / "rules.toml").write_text(RULES)
    monkeypatch.setenv("AWRY_LISTN", "x")
    monkeypatch.setenv("AWRY_PROBES", "a,b")
    monkeypatch.setenv("AWRY_KAFKA_SSL_KEY_PASSWORD_FILE", str(tmp_path / "no-secret"))
    found = faults()
    assert all(each["fault"] and each["fix"] for each in found)
    assert places([each for each in found if each["setting"]]) == {
        "probes": "AWRY_PROBES",
        "privcy": 1,
        "batch_messages": 2,
        "kafka_bootstrap": 4,
        "kafka_sasl_mechanism": None,
        "kafka_sasl_username": None,
        "kafka_sasl_password": None,
        "kafka_ssl_ca_file": 6,
        "judge_url": 7,
        "source": 8,
        "format": 9,
        "model": 10,
        "listen": 11,
        "start_from": 12,
        "verdicts_out": 13,
        "mapping.idd": 17,
        "mapping.tenant": 18,
        "destinations.0.secret": 24,
        "destinations.1.path": 29,
    }
    others = [(each["environment"] or f"{each['file']}:{each['line']}") for each in found if not each["setting"]]
    assert others == ["AWRY_KAFKA_SSL_KEY_PASSWORD_FILE", "AWRY_LISTN", "rules.toml:3", "rules.toml:4", "rules.toml:4"]


def test_as_text_the_place_comes_first_and_the_fix_below(tmp_path: Path) -> None:
    (tmp_path / "awry.toml").write_text('privcy = "none"\n')
    done = invoke("config", "check")
    assert done.exit_code == 1
    assert done.stdout == "awry.toml:1: privcy: no such setting\n  fix: did you mean privacy? see awry config list\n"
    assert done.stderr == "awry: awry.toml and the environment: 1 fault\n"


def test_without_faults_it_succeeds(tmp_path: Path) -> None:
    assert faults() == []
    (tmp_path / "awry.toml").write_text('probes = ["harmful-request"]\nshadow = ["harmful-request"]\n')
    assert "awry.toml and the environment: no faults" in output_of(invoke("config", "check"))


def test_a_file_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is checked as the one that AWRY_CONFIG names: it may hold what the folder's own may not."""
    file = tmp_path / "awry.toml"
    file.write_text("trust_remote_code = true\n")
    assert places(faults(file)) == {"trust_remote_code": 1}
    other = tmp_path / "other.toml"
    file.rename(other)
    assert faults(other) == []
    monkeypatch.setenv("AWRY_CONFIG", str(other))
    assert faults(other) == []
    (missing,) = faults(tmp_path / "missing.toml")
    assert "there is no such file" in missing["fault"]


@pytest.mark.parametrize(
    ("content", "line"),
    [(b'a = 1\nmodel = "x\n', 2), (b"\xff", None), (b"model\n", 1), (b"model = [\n", 1), (b"a = 1\r\na = 2\r\n", 2)],
)
def test_a_file_that_does_not_parse(tmp_path: Path, content: bytes, line: int | None) -> None:
    (tmp_path / "awry.toml").write_bytes(content)
    (found,) = faults()
    assert (found["file"], found["line"], found["setting"]) == ("awry.toml", line, None)


def test_a_fault_hides_no_other(tmp_path: Path) -> None:
    """Of settings that depend on one another, and of lists, only what is wrong is left out."""
    (tmp_path / "awry.toml").write_text(
        'judge_url = "https://judge.example/v1"\nerror_from = 2.0\ncritical_from = 1.0\nshadow = ["nobody"]\n'
        'probes = ["harmful-request", "no-such"]\nadapter = "no-such"\nmitigate_with = "nobody"\n'
    )
    assert places(faults()) == {"judge_model": None, "critical_from": 3, "probes": 5, "adapter": 6}
    (tmp_path / "awry.toml").write_text('shadow = ["nobody"]\nprobes = ["harmful-request"]\nmitigate_with = "nobody"\n')
    assert places(faults()) == {"shadow": 1, "mitigate_with": 3}


def test_rules_that_notify_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules.toml").write_text("")
    monkeypatch.setenv("AWRY_RULES_FILE", "rules.toml")
    (found,) = faults()
    assert (found["file"], found["fault"]) == ("rules.toml", "has no rule: nobody would be notified")


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_JUDGE_COMMAND", '["no-such-judge"]')
    assert places(faults()) == {"judge_command": "AWRY_JUDGE_COMMAND"}


# What counts.


def shown(*arguments: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(output_of(invoke("config", "show", *arguments, "--json")))}


def test_each_value_has_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "awry.toml").write_text('logs = "json"\nprivacy = "none"\n\n[mapping]\nprompt = "p"\nid = "i"\n')
    (tmp_path / "password").write_text(CANARY)
    monkeypatch.setenv("AWRY_PRIVACY", "full")
    monkeypatch.setenv("AWRY_MAPPING", '{"id": "j"}')
    monkeypatch.setenv("AWRY_KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "password"))
    found = shown("--model", "m", "--probe", "p", "--follow")
    assert set(found) == set(Settings.model_fields)

    def of(name: str) -> tuple[Any, list[Any]]:
        places = [(place["kind"], place["environment"] or place["line"]) for place in found[name]["from"]]
        return found[name]["value"], places

    assert of("model") == ("m", [("flag", None)])
    assert of("probes") == (["p"], [("flag", None)])
    assert of("follow") == (True, [("flag", None)])
    assert of("privacy") == ("full", [("environment", "AWRY_PRIVACY")])
    assert of("logs") == ("json", [("file", 1)])
    assert of("mapping") == ({"prompt": "p", "id": "j"}, [("environment", "AWRY_MAPPING"), ("file", 4)])
    assert of("kafka_sasl_password") == ("***", [("secret file", None)])
    assert found["kafka_sasl_password"]["from"][0]["file"] == str(tmp_path / "password")
    assert of("device") == ("auto", [("default", None)])
    text = output_of(invoke("config", "show", "--model", "m"))
    assert "AWRY_PRIVACY" in text
    assert "awry.toml:1" in text
    assert CANARY not in text


def test_what_is_shown_is_what_counts() -> None:
    assert list(shown()) == [row[0] for row in reference()]
    assert shown()["source"]["value"] == load_settings().source


def test_no_secret_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "geheim" * 5 + "ab"
    (tmp_path / "settings.toml").write_text(
        f"""
database_url = "postgresql://u:geheim@h:5/d?sslpassword=geheim&sslmode=require"
dashboard_url = "https://u:geheim@g.example/d?var=1&api_key=geheim"
judge_command = ["judge", "--api-key", "geheim", "--token=geheim", "-v"]
judge_api_key = "geheim"
[judge_request]
api_key = "geheim"
temperature = 0.0
[[destinations]]
name = "hook"
kind = "webhook"
url = "https://u:geheim@hooks.example:8443/T0/geheim"
secret = "whsec_{"Z2VoZWlt" * 4}"
proxy = "http://u:geheim@proxy:3128"
headers = {{Authorization = "geheim"}}
[[destinations]]
name = "chat"
kind = "apprise"
url = "slack://geheim/geheim/x"
[[destinations]]
name = "oncall"
kind = "pagerduty"
routing_key = "{key}"
"""
    )
    monkeypatch.setenv("AWRY_CONFIG", str(tmp_path / "settings.toml"))
    found = shown()
    assert found["database_url"]["value"] == "postgresql://u:***@h:5/d?sslpassword=***&sslmode=require"
    assert found["judge_command"]["value"] == ["judge", "--api-key", "***", "--token=***", "-v"]
    assert found["judge_request"]["value"] == {"api_key": "***", "temperature": 0.0}
    assert found["destinations"]["value"][0]["url"] == "https://hooks.example:8443/***"
    assert found["destinations"]["value"][1]["url"] == "slack://***"
    for text in (json.dumps(found), output_of(invoke("config", "show"))):
        assert CANARY not in text
        assert "Z2VoZWlt" not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [("special_tokens", "as_text"), ("mapping", {"id": "token"}), ("judge_questions", {"secret-leak": "Is it?"})],
)
def test_what_is_no_secret_is_shown(name: str, value: Any) -> None:
    assert shown_value(name, value) == value


def test_settings_that_are_wrong_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_PRIVACY", "all")
    assert message_of(invoke("config", "show")).startswith("privacy (AWRY_PRIVACY): ")


def test_the_list_has_its_old_name() -> None:
    new, old = invoke("config", "list", "--json"), invoke("settings", "--json")
    assert json.loads(new.stdout) == json.loads(old.stdout)
    assert old.stderr == "awry: awry settings is deprecated, use awry config list\n"


@pytest.mark.parametrize(
    ("primary", "replica", "what", "fix"),
    [
        ("postgresql://awry@db/awry", "mysql://awry:geheim@db/awry", "mysql is not supported", "PostgreSQL only"),
        ("postgresql://awry@db/awry", "db:5432:geheim", "not a URL", "write postgresql://"),
        ("postgresql://awry@db/awry", "postgres://awry@db/awry", "is the address of database_url itself", "standby"),
        (None, "postgresql://awry@db/awry", "no database_url", "set AWRY_DATABASE_URL or AWRY_DATABASE_URL_FILE"),
    ],
)
def test_a_replica_is_another_server_of_the_same_database(
    monkeypatch: pytest.MonkeyPatch, primary: str | None, replica: str, what: str, fix: str
) -> None:
    monkeypatch.delenv("AWRY_DATABASE_URL", raising=False)
    if primary is not None:
        monkeypatch.setenv("AWRY_DATABASE_URL", primary)
    monkeypatch.setenv("AWRY_READ_DATABASE_URL", replica)
    (fault,) = faults()
    assert fault["setting"] == "read_database_url"
    assert what in fault["fault"]
    assert fix in fault["fix"]


def test_a_replica_beside_its_primary_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_DATABASE_URL", "postgresql://awry@one/awry")
    monkeypatch.setenv("AWRY_READ_DATABASE_URL", "postgresql://awry@two/awry")
    assert faults() == []


def test_a_truth_value_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "awry.toml").write_text(
        "batch_messages = true\nscore_seconds = true\nfollow = 1\n"
        '[[destinations]]\nname = "a"\nkind = "console"\ngive_up_hours = true\n'
    )
    assert places(faults()) == {
        **{"batch_messages": 1, "score_seconds": 2, "follow": 3},
        "destinations.0.give_up_hours": 7,
    }


INTERVAL = (
    '[[time_intervals]]\nname = "nights"\n'
    '[[time_intervals.time_intervals]]\ntimes = [{start_time = "%s", end_time = "06:00"}]\n'
)
ROUTE = '[route]\ndestinations = ["console"]\n[[route.routes]]\nmute_time_intervals = ["nights"]\n'


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        (INTERVAL % "25:00", "time_intervals.0.time_intervals.0.times.0.start_time"),
        (INTERVAL % "00:00" * 2 + ROUTE, "time_intervals"),
        ('error_from = "x"\ncritical_from = 0.3\n', "error_from"),
    ],
)
def test_a_fault_brings_no_other(tmp_path: Path, written: str, wrong: str) -> None:
    (tmp_path / "awry.toml").write_text(written)
    assert [each["setting"] for each in faults()] == [wrong]


def test_a_settings_file_that_is_there_is_read_or_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "awry.toml"
    path.symlink_to("nowhere")
    assert len(faults()) == 1
    path.unlink()
    path.symlink_to(path)
    assert len(faults()) == 1
    path.unlink()
    path.mkdir()
    assert len(faults()) == 1
    path.rmdir()
    os.mkfifo(path)
    assert len(faults()) == 1


def test_a_file_that_is_given_may_be_a_pipe() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as pipe:
        pipe.write("privcy = 1\n")
    assert [each["setting"] for each in faults(f"/dev/fd/{read}")] == ["privcy"]
    os.close(read)
    assert faults("/dev/null") == []
