"""deploy/kubernetes: kustomize builds it, every object is what its own type says, and what refers to another finds it.

Whether the containers' commands run is in test_kubernetes_processes.py.
"""

from __future__ import annotations

import copy
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitor.ingest.server import _STOP_SECONDS as INGEST_SECONDS
from monitor.score_server.server import _STOP_SECONDS as SCORE_SECONDS
from monitor.service.run import DEFAULT_LISTEN
from monitor.settings import load_settings
from monitor.web.server import _STOP_SECONDS as SERVE_SECONDS
from scripts.prometheus_rule import RULES, TARGET, prometheus_rule
from tests.deploy.conftest import SOURCE, Loader, LoadError, go
from tests.support import ROOT
from tests.support.cli import parse

FOLDER = ROOT / "deploy" / "kubernetes"
COMPONENTS = sorted(path.parent.name for path in FOLDER.glob("components/*/kustomization.yaml"))
# In an order that kustomize takes: keda-sasl adds to keda, gpu and models to score-server.
TOGETHER = sorted(COMPONENTS, key=lambda name: (name == "keda-sasl", name != "score-server"))
OF_BASE = ("run", "send", "serve", "ingest")
PROCESSES = (*OF_BASE, "score-server")
SECRET_MOUNT = "/run/secrets/awry"
PORT = int(DEFAULT_LISTEN.rpartition(":")[2])

Object = dict[str, Any]
Build = Callable[..., list[Object]]


@pytest.fixture(scope="session")
def base(built: Build) -> list[Object]:
    return built()


@pytest.fixture(scope="session")
def whole(built: Build, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """The base with every pod that a component adds."""
    return with_components(built, tmp_path_factory.mktemp("whole"), ["score-server", "retention"])


@pytest.fixture(scope="session")
def example(built: Build) -> list[Object]:
    return built(FOLDER / "example")


def with_components(built: Build, folder: Path, names: Iterable[str]) -> list[Object]:
    """The base with these components, from a folder of its own as an operator has it."""
    at = Path(os.path.relpath(FOLDER, folder))
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(at / "base")],
        "components": [str(at / "components" / name) for name in names],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return built(folder)


def of_kind(objects: Iterable[Object], kind: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def workloads(objects: Iterable[Object]) -> dict[str, Object]:
    """By component: the Deployments, the Job and the CronJob."""
    found = [one for one in objects if one["kind"] in ("Deployment", "Job", "CronJob")]
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in found}


def template(workload: Object) -> Object:
    spec = workload["spec"]
    return dict((spec["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else spec)["template"])


def pod(workload: Object) -> Object:
    return dict(template(workload)["spec"])


def container(workload: Object) -> Object:
    (one,) = pod(workload)["containers"]
    return dict(one)


def settings_of(objects: Iterable[Object]) -> dict[str, str]:
    (found,) = of_kind(objects, "ConfigMap").values()
    return dict(found["data"])


def labels_of(workload: Object) -> dict[str, str]:
    return dict(template(workload)["metadata"]["labels"])


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """As the API server matches a label selector."""
    if not all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", []):
        assert one["operator"] == "In", "the only operator that is used"
        if labels.get(one["key"]) not in one["values"]:
            return False
    return True


def words(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield str(name)
            yield from words(one)
    elif isinstance(value, list):
        for one in value:
            yield from words(one)
    else:
        yield str(value)


# What is there, and that wrong files would be refused.


def manifests() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")


def test_every_file_is_used_and_strictly_what_it_says(loader: Loader) -> None:
    used = set()
    for path in FOLDER.rglob("kustomization.yaml"):
        content = yaml.safe_load(path.read_text())
        used |= {path.parent / name for name in content.get("resources", []) if name.endswith(".yaml")}
        used |= {path.parent / one["path"] for one in content.get("patches", []) if "path" in one}
    assert set(manifests()) == used
    assert len(loader("decode", *manifests())) > 15


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: x}
spec:
  replicas: 1
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers: [{name: x, image: x}]
"""
SCALED = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: x}
spec:
  scaleTargetRef: {name: x}
  minReplicaCount: 1
  maxReplicaCount: 2
  triggers:
    - {type: kafka, metadata: {topic: t}}
"""


@pytest.mark.parametrize(
    ("text", "old", "new", "reason"),
    [
        (DEPLOYMENT, "replicas: 1", "replica: 1", "unknown field"),
        (DEPLOYMENT, "replicas: 1", "replicas: one", "cannot unmarshal string"),
        (DEPLOYMENT, "replicas: 1", "replicas: 1\n  replicas: 2", "already (set|defined)"),
        (DEPLOYMENT, "image: x", "image: x, imagePullpolicy: Always", "unknown field"),
        (DEPLOYMENT, "kind: Deployment", "kind: Deploymnet", "no such kind"),
        (DEPLOYMENT, "apps/v1", "apps/v1beta1", "no such kind"),
        (SCALED, "maxReplicaCount: 2", "maxReplicaCount: 0", "MinReplicaCount"),
        (SCALED, "metadata: {topic", "metadta: {topic", "unknown field"),
    ],
)
def test_the_loader_refuses_what_a_cluster_would(
    loader: Loader, tmp_path: Path, text: str, old: str, new: str, reason: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert len(loader("decode", path)) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(LoadError, match=reason):
        loader("decode", path)


@pytest.mark.parametrize("name", COMPONENTS)
def test_each_component_fits_the_base(built: Build, tmp_path: Path, name: str, base: list[Object]) -> None:
    needed = ["keda", "kafka-sasl"] if name == "keda-sasl" else []
    assert with_components(built, tmp_path, [*needed, name]) != base


def test_all_components_fit_together(built: Build, tmp_path: Path) -> None:
    found = with_components(built, tmp_path, TOGETHER)
    assert container(workloads(found)["run"])["image"].startswith("awry-gpu:")
    assert settings_of(found)["AWRY_DEVICE"] == "cuda"
    assert settings_of(found)["AWRY_KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"


# awry itself.


def read_by_awry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, objects: list[Object]) -> Any:
    """The settings as a process in the pod reads them, with a Secret of these files."""
    for name in ("database-url", "kafka-sasl-password", "kafka-ca.crt"):
        (tmp_path / name).write_text("postgresql://awry@db/awry")
    (tmp_path / "destinations").write_text('[{"name": "soc", "kind": "console"}]')
    for name, value in settings_of(objects).items():
        monkeypatch.setenv(name, value.replace(SECRET_MOUNT, str(tmp_path)))
    return load_settings()


def test_awry_accepts_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: list[Object]) -> None:
    found = read_by_awry(monkeypatch, tmp_path, base)
    assert found.database_url.get_secret_value() == "postgresql://awry@db/awry"
    assert [one.name for one in found.destinations] == ["soc"]
    assert found.listen == found.ingest_listen == f"0.0.0.0:{PORT}", "the kubelet and Prometheus are not in the pod"
    assert found.start_from == "earliest"
    assert found.source == f"kafka:{found.ingest_topic}"


def test_awry_accepts_the_settings_of_all_components(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, built: Build
) -> None:
    folder = tmp_path / "overlay"
    folder.mkdir()
    found = read_by_awry(monkeypatch, tmp_path, with_components(built, folder, ["gpu", "models", "kafka-sasl"]))
    assert found.kafka_sasl_mechanism == "SCRAM-SHA-512"
    assert found.probes == ("/models/probes/my-probe.json",)


def test_awry_accepts_the_settings_of_the_example(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, example: list[Object]
) -> None:
    assert "{alert_id}" in read_by_awry(monkeypatch, tmp_path, example).dashboard_url


def test_the_commands_exist(base: list[Object], whole: list[Object]) -> None:
    assert set(workloads(base)) == {*OF_BASE, "migrate"}
    found = workloads(whole)
    assert set(found) == {*PROCESSES, "migrate", "retain"}
    for workload in found.values():
        assert "command" not in container(workload), "the image's entry point is awry"
        parse(container(workload)["args"])


def test_topics_are_those_that_are_made(base: list[Object]) -> None:
    made = set(re.findall(r"^create (\S+)", (ROOT / "deploy/kafka/create-topics.sh").read_text(), re.MULTILINE))
    # Of vLLM's servers, which are nobody's here.
    made -= {"awry.readings"}
    assert set(re.findall(r"kafka:(awry\.\S+)", "\n".join(settings_of(base).values()))) == made


def test_images_have_the_version_of_the_project(whole: list[Object], built: Build, tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for workload in workloads(whole).values():
        assert container(workload)["image"] == f"awry:{version}"
    assert container(workloads(with_components(built, tmp_path, ["gpu"]))["run"])["image"] == f"awry-gpu:{version}"
    example = yaml.safe_load((FOLDER / "example" / "kustomization.yaml").read_text())
    assert {one["name"]: one["newTag"] for one in example["images"]} == {"awry": version, "awry-gpu": f"{version}-gpu"}


# What the pods may do.


def test_pods_fit_the_restricted_standard(whole: list[Object]) -> None:
    for name, workload in workloads(whole).items():
        spec, one = pod(workload), container(workload)
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert all(set(volume) - {"name"} <= {"emptyDir", "secret"} for volume in spec["volumes"]), name
        # OpenShift gives each namespace a range of ids of its own, and refuses others.
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & {*spec["securityContext"], *one["securityContext"]}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name


def test_what_is_written_is_a_volume(whole: list[Object]) -> None:
    for name, workload in workloads(whole).items():
        volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
        mounts = {mount["mountPath"]: mount for mount in container(workload)["volumeMounts"]}
        assert {mount["name"] for mount in mounts.values()} == set(volumes), name
        for path in ("/var/lib/awry", "/tmp"):  # noqa: S108 - a mount of its own
            assert "sizeLimit" in volumes[mounts[path]["name"]]["emptyDir"], name
            assert "readOnly" not in mounts[path], name
        assert mounts[SECRET_MOUNT]["readOnly"] is True, name
    text = (ROOT / "Dockerfile").read_text()
    assert "AWRY_STATE_DIR=/var/lib/awry" in text
    assert "ENTRYPOINT" in text


def test_no_secret_is_written_down(base: list[Object], example: list[Object], built: Build, tmp_path: Path) -> None:
    for objects in (base, example, with_components(built, tmp_path, TOGETHER)):
        assert not of_kind(objects, "Secret")
        for name, value in settings_of(objects).items():
            assert not re.search(r"://[^/@]*@", value), name
            secret = re.search("PASSWORD|SECRET|TOKEN|API_KEY|DATABASE_URL|DESTINATIONS", name)
            assert not secret or value.startswith(f"{SECRET_MOUNT}/"), name
        assert not [word for word in words(objects) if re.search(r"://[^/@\s]+:[^/@\s]+@", word)]
        for workload in workloads(objects).values():
            assert not [one for one in container(workload).get("env", []) if "value" in one]


def test_each_process_has_its_resources(whole: list[Object]) -> None:
    for name, workload in workloads(whole).items():
        found = container(workload)["resources"]
        assert set(found["requests"]) == {"cpu", "memory"}, name
        # Memory that is not there must not be promised; a limit on CPUs would only slow a scorer down.
        assert set(found["limits"]) == {"memory"}, name
    for name in ("run", "score-server"):
        scorer = container(workloads(whole)[name])
        (threads,) = scorer["env"]
        assert threads["valueFrom"]["resourceFieldRef"] == {"containerName": "awry", "resource": "requests.cpu"}
        assert scorer["resources"]["requests"]["cpu"] == "2", "whole: it is a number of threads"


# Who refers to whom.


def test_deployments_and_services_select_their_own_pods(whole: list[Object]) -> None:
    found = workloads(whole)
    for name in PROCESSES:
        deployment = found[name]
        chosen = [other for other, one in found.items() if selects(deployment["spec"]["selector"], labels_of(one))]
        assert chosen == [name]
        (spread,) = pod(deployment)["topologySpreadConstraints"]
        assert spread["labelSelector"] == deployment["spec"]["selector"]
    services = of_kind(whole, "Service")
    assert set(services) == {"awry-serve", "awry-ingest", "awry-score-server"}
    for full_name, service in services.items():
        chosen = [
            n for n, one in found.items() if selects({"matchLabels": service["spec"]["selector"]}, labels_of(one))
        ]
        assert chosen == [full_name.removeprefix("awry-")]
        (port,) = service["spec"]["ports"]
        assert port["targetPort"] in {one["name"] for one in container(found[chosen[0]])["ports"]}
    assert services["awry-ingest"]["spec"]["ports"][0]["port"] == 4318
    assert services["awry-serve"]["spec"]["ports"][0]["port"] == PORT
    own = load_settings().score_listen.rpartition(":")[2]
    assert services["awry-score-server"]["spec"]["ports"][0]["port"] == int(own)


def test_probes_ask_the_port_that_awry_listens_on(whole: list[Object]) -> None:
    for name in PROCESSES:
        one = container(workloads(whole)[name])
        assert one["ports"] == [{"name": "http", "containerPort": PORT}]
        paths = {kind: one[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert {kind: found["path"] for kind, found in paths.items()} == {
            "startupProbe": "/healthz",
            "livenessProbe": "/healthz",
            "readinessProbe": "/readyz",
        }
        assert {found["port"] for found in paths.values()} == {"http"}
    for name in ("migrate", "retain"):
        job = container(workloads(whole)[name])
        assert not [field for field in job if field.endswith("Probe")], "it ends by itself"


def test_there_is_time_to_drain(whole: list[Object]) -> None:
    found = workloads(whole)
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    minutes = compose["run"]["stop_grace_period"]
    assert pod(found["run"])["terminationGracePeriodSeconds"] == 60 * int(minutes.removesuffix("m"))
    assert pod(found["send"])["terminationGracePeriodSeconds"] >= 60
    settings = load_settings()
    for name, seconds in (
        ("serve", SERVE_SECONDS),
        ("ingest", INGEST_SECONDS + settings.ingest_ack_seconds),
        ("score-server", SCORE_SECONDS + settings.score_seconds + settings.ingest_ack_seconds),
    ):
        before = container(found[name])["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert before > 0, "the Service still sends requests for a moment"
        assert pod(found[name])["terminationGracePeriodSeconds"] > before + seconds
    # Until awry handles SIGTERM, process 1 would ignore it.
    assert all(pod(one)["shareProcessNamespace"] is True for one in found.values())


def test_each_process_has_a_budget_that_lets_a_node_be_drained(whole: list[Object]) -> None:
    budgets = of_kind(whole, "PodDisruptionBudget")
    assert set(budgets) == {f"awry-{name}" for name in PROCESSES}
    for name in PROCESSES:
        spec = budgets[f"awry-{name}"]["spec"]
        assert spec["selector"] == workloads(whole)[name]["spec"]["selector"]
        assert spec["maxUnavailable"] == 1
        assert "minAvailable" not in spec


def policies_of(objects: list[Object], component: str) -> list[Object]:
    labels = labels_of(workloads(objects)[component])
    every = of_kind(objects, "NetworkPolicy").values()
    return [one["spec"] for one in every if selects(one["spec"]["podSelector"], labels)]


def egress(objects: list[Object], component: str) -> set[tuple[str, int]]:
    """(protocol, port) that a component may connect to."""
    found = set()
    for spec in policies_of(objects, component):
        for rule in spec.get("egress", []):
            assert rule["ports"], "no rule without ports"
            for one in rule["ports"]:
                found |= {(one["protocol"], n) for n in range(one["port"], one.get("endPort", one["port"]) + 1)}
    return found


def admitted(objects: list[Object], component: str) -> set[str]:
    """The labels of namespaces from which a component is reached."""
    found: set[str] = set()
    for spec in policies_of(objects, component):
        for rule in spec.get("ingress", []):
            assert [one["port"] for one in rule["ports"]] == ["http"]
            for peer in rule["from"]:
                assert set(peer) == {"namespaceSelector"}
                found |= set(peer["namespaceSelector"]["matchLabels"])
    return found


def test_the_network_is_closed_but_for_what_each_needs(whole: list[Object]) -> None:
    dns = {(protocol, port) for protocol in ("UDP", "TCP") for port in (53, 5353)}
    database = {("TCP", 5432), ("TCP", 6432)}
    kafka = {("TCP", port) for port in range(9092, 9099)}
    expected = {
        "migrate": (dns | database, {"awry-metrics"}),
        "retain": (dns | database, {"awry-metrics"}),
        "run": (dns | database | kafka, {"awry-metrics"}),
        "ingest": (dns | database | kafka, {"awry-metrics", "awry-ingest"}),
        "send": (dns | database | {("TCP", 443), ("TCP", 6514)}, {"awry-metrics"}),
        "serve": (dns | database, {"awry-metrics", "awry-serve"}),
        "score-server": (dns | database, {"awry-metrics", "awry-score-server"}),
    }
    for component, (out, within) in expected.items():
        # A pod that no policy selects is open both ways.
        assert {kind for spec in policies_of(whole, component) for kind in spec["policyTypes"]} == {"Ingress", "Egress"}
        assert egress(whole, component) == out, component
        assert admitted(whole, component) == within, component
    assert int(settings_of(whole)["AWRY_KAFKA_BOOTSTRAP"].rpartition(":")[2]) in {port for _, port in kafka}


def test_the_first_step_holds_all_that_the_job_needs(example: list[Object]) -> None:
    """What docs/kubernetes.md applies before the processes: what is common, and the Job."""
    first = [
        one for one in example if one["metadata"]["labels"]["app.kubernetes.io/component"] in ("common", "migrate")
    ]
    assert {"Deployment", "ScaledObject"}.isdisjoint(one["kind"] for one in first)
    (job,) = workloads(first).values()
    assert pod(job)["serviceAccountName"] in of_kind(first, "ServiceAccount")
    assert container(job)["envFrom"][0]["configMapRef"]["name"] in of_kind(first, "ConfigMap")
    assert egress(first, "migrate") == egress(example, "migrate")
    assert {one["metadata"].get("namespace", "awry") for one in example} == set(of_kind(first, "Namespace"))
    for workload in workloads(example).values():
        for source in container(workload)["envFrom"]:
            assert source["configMapRef"]["name"] in of_kind(example, "ConfigMap")


# What components add.


def test_the_daily_job_is_the_migration_with_another_command(whole: list[Object]) -> None:
    migrate, retain = workloads(whole)["migrate"], workloads(whole)["retain"]
    theirs, ours = pod(migrate), pod(retain)
    ours["containers"] = [{**container(retain), "args": container(migrate)["args"]}]
    assert ours == theirs
    assert container(retain)["args"][:2] == ["db", "retain"]
    assert retain["spec"]["concurrencyPolicy"] == "Forbid"


def test_a_device_and_a_model_are_those_of_the_workers(built: Build, tmp_path: Path) -> None:
    found = workloads(with_components(built, tmp_path, ["score-server", "gpu", "models"]))
    worker, scorer = container(found["run"]), container(found["score-server"])
    for field in ("image", "resources", "volumeMounts"):
        assert scorer[field] == worker[field]
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "awry-models", "readOnly": True}} in pod(
        found["score-server"]
    )["volumes"]


def test_a_large_model_has_its_time_to_load(whole: list[Object]) -> None:
    """The address of the score server opens when its model is loaded."""
    probe = container(workloads(whole)["score-server"])["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 1200


# KEDA and Prometheus.


def scaled(objects: list[Object]) -> Object:
    (found,) = of_kind(objects, "ScaledObject").values()
    return dict(found["spec"])


def known_fields() -> dict[str, list[str]]:
    """KEDA's own parameters of a Kafka trigger, from its source: where each may come from."""
    folder = Path(json.loads(go("list", "-m", "-json", "github.com/kedacore/keda/v2").stdout)["Dir"])
    source = (folder / "pkg" / "scalers" / "kafka_scaler.go").read_text()
    tags = re.findall(r'`keda:"name=(\w+),order=([\w;]+)', source)
    return {name: order.split(";") for name, order in tags}


def test_keda_scales_the_workers_by_the_lag_of_their_group(built: Build, tmp_path: Path) -> None:
    objects = with_components(built, tmp_path, ["kafka-sasl", "keda", "keda-sasl"])
    spec, settings = scaled(objects), settings_of(objects)
    worker = of_kind(objects, "Deployment")[spec["scaleTargetRef"]["name"]]
    assert "replicas" not in worker["spec"], "kubectl apply would set it back"
    (trigger,) = spec["triggers"]
    given = trigger["metadata"]
    assert settings["AWRY_SOURCE"] == f"kafka:{given['topic']}"
    assert given["consumerGroup"] == load_settings().kafka_group
    assert given["offsetResetPolicy"] == settings["AWRY_START_FROM"]
    partitions = re.search(r"^create awry\.traffic (\d+)", (ROOT / "deploy/kafka/create-topics.sh").read_text(), re.M)
    assert partitions is not None
    assert spec["maxReplicaCount"] == int(partitions[1])
    assert spec["minReplicaCount"] == 1
    fields = known_fields()
    assert {"bootstrapServers", "password"} <= set(fields)
    assert all("triggerMetadata" in fields[name] for name in given)
    (login,) = of_kind(objects, "TriggerAuthentication").values()
    assert trigger["authenticationRef"]["name"] == login["metadata"]["name"]
    references = login["spec"]["secretTargetRef"]
    assert all("authParams" in fields[one["parameter"]] for one in references)
    files = {value.removeprefix(f"{SECRET_MOUNT}/") for value in settings.values() if value.startswith(SECRET_MOUNT)}
    assert {one["key"] for one in references} <= files | {"kafka-sasl-username"}
    assert given["sasl"] == settings["AWRY_KAFKA_SASL_MECHANISM"].lower().replace("-", "_").replace("sha_512", "sha512")


def test_the_example_scales_on_the_broker_that_the_workers_read(example: list[Object]) -> None:
    (trigger,) = scaled(example)["triggers"]
    assert trigger["metadata"]["bootstrapServers"] == settings_of(example)["AWRY_KAFKA_BOOTSTRAP"]


def test_the_rules_are_those_of_prometheus(example: list[Object]) -> None:
    assert TARGET.read_text() == prometheus_rule(RULES.read_text()), "run python -m scripts.prometheus_rule"
    (found,) = of_kind(example, "PrometheusRule").values()
    assert found["spec"] == yaml.safe_load(RULES.read_text())


def test_every_process_is_scraped_under_the_name_that_the_rules_know(built: Build, tmp_path: Path) -> None:
    objects = with_components(built, tmp_path, ["score-server", "prometheus"])
    (monitor,) = of_kind(objects, "PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (relabeling,) = endpoint["relabelings"]
    assert relabeling["targetLabel"] == "job"
    jobs = set()
    for workload in workloads(objects).values():
        labels = labels_of(workload)
        if selects(monitor["spec"]["selector"], labels):
            assert endpoint["port"] in {one["name"] for one in container(workload)["ports"]}
            # As Prometheus writes a label of a pod.
            meta = {"__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", name): v for name, v in labels.items()}
            (source,) = relabeling["sourceLabels"]
            jobs.add(relabeling["replacement"].replace("$1", meta[source]))
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert jobs == {one["job_name"] for one in scraped} - {"prometheus"}


def test_a_changed_setting_starts_the_pods_again(built: Build, tmp_path: Path, base: list[Object]) -> None:
    other = with_components(built, tmp_path, ["gpu"])
    names = [next(iter(of_kind(objects, "ConfigMap"))) for objects in (base, other)]
    assert names[0] != names[1]
    changed = copy.deepcopy(workloads(other)["send"])
    assert container(changed)["envFrom"] == [{"configMapRef": {"name": names[1]}}]


def test_go_names_no_host_of_a_registry() -> None:
    text = "".join(path.read_text() for path in SOURCE.iterdir() if path.suffix in (".go", ".mod"))
    assert not re.search(r"https?://|GOPROXY|replace ", text)


# docs/kubernetes.md.

PAGE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")


def test_the_page_answers_what_an_operator_asks() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    asked = ["Install", "Scale", "Upgrade", "Back up", "Restore", "Rotate secrets", "Uninstall"]
    assert [heading for heading in headings if heading in asked] == asked
    assert set(re.findall(r"`components/([\w-]+)`", PAGE)) == set(COMPONENTS)


def test_the_page_names_what_is_there(example: list[Object], whole: list[Object]) -> None:
    names = {one["metadata"]["name"] for one in (*example, *whole)}
    workload = "|".join(("deployment", "deploy", "job", "cronjob", "service", "scaledobject"))
    assert set(re.findall(rf"\b(?:{workload})[ /](awry[\w-]*)", PAGE)) <= names
    labels = {label for one in workloads(whole) for label in admitted(whole, one)}
    assert set(re.findall(r"label namespace \S+ (\S+)=allowed", PAGE)) == labels
    keys = {value.removeprefix(f"{SECRET_MOUNT}/") for value in settings_of(example).values() if SECRET_MOUNT in value}
    assert set(re.findall(r"--from-file=([\w-]+)", PAGE)) == keys


def test_commands_inside_pods_can_be_typed() -> None:
    commands = re.findall(r"exec deploy/(\S+) -- awry (.+)$", PAGE, re.MULTILINE)
    assert len(commands) > 2
    for _, command in commands:
        parse(command.split())
