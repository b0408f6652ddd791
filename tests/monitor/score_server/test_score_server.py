"""`awry score-server` over HTTP, with a real model, a real database and real tokens."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine, func, select

from monitor.errors import SettingsError
from monitor.score_server.app import PATH
from monitor.score_server.server import serving
from monitor.service import bootstrap, registration
from monitor.settings import Settings, load_settings
from monitor.stream.spool import decode_line
from probes.card import load_probe, save_probe
from storage import probe_registry, schema
from tests.support.alerts.alert_scenes import ANNA
from tests.support.ingest.receiver import client
from tests.support.stream.worker import make_probe, scores_of
from tests.support.web.api import token

CANARY = "canary words of a prompt"


@pytest.fixture
def settings(tiny_folder: Path, engine: Engine, tmp_path: Path) -> Settings:
    return load_settings(
        model=str(tiny_folder / "tiny-chat"),
        probes=(str(tiny_folder / "drift.json"),),
        score_listen="127.0.0.1:0",
        state_dir=tmp_path / "state",
        max_tokens=128,
    )


@pytest.fixture
def url(settings: Settings, engine: Engine) -> Iterator[str]:
    with serving(settings, engine, lambda _: None) as address:
        yield f"http://{address}"


@pytest.fixture
def http(url: str, engine: Engine) -> Iterator[httpx2.Client]:
    with client(url, token(engine, "gateway", "score")) as made:
        yield made


def rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(schema.messages)).scalar_one()


def test_the_verdict_is_the_workers(http: httpx2.Client, settings: Settings, engine: Engine) -> None:
    response = http.post(PATH, json={"id": "one", "prompt": "steal a knife"})
    assert response.status_code == 200
    body = response.json()
    (verdict,) = body["messages"]
    probe = load_probe(settings.probes[0])
    score = verdict["scores"]["drift"]
    (expected,) = scores_of(bootstrap.load_model(settings), probe, ["steal a knife"])
    assert score["score"] == pytest.approx(expected, abs=1e-4)
    assert (score["threshold"], score["version"], score["digest"]) == (probe.card.threshold, 1, probe.digest)
    flagged = expected > probe.card.threshold
    assert score["flagged"] is flagged
    assert (verdict["id"], verdict["status"], verdict["decision"]) == ("one", "scored", "flag" if flagged else "pass")
    assert body["decision"] == verdict["decision"]
    assert rows(engine) == 0  # nothing is stored


def test_any_format_and_many_messages(http: httpx2.Client) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hello there"}]}]}
    lines = b"\n".join(json.dumps({"id": str(i), "prompt": f"hello {i}"}).encode() for i in range(20))
    assert http.post(PATH, json=chat).json()["messages"][0]["status"] == "scored"
    body = http.post(PATH, content=lines, headers={"Content-Type": "application/x-ndjson"}).json()
    assert [message["id"] for message in body["messages"]] == [str(i) for i in range(20)]
    packed = http.post(PATH, content=gzip.compress(lines), headers={"Content-Encoding": "gzip"}).json()
    # The second time their beginnings are there already, which changes the last digit.
    again, before = ([m["scores"]["drift"]["score"] for m in each["messages"]] for each in (packed, body))
    assert again == pytest.approx(before, abs=1e-5)


def test_what_cannot_be_read_is_said_and_is_no_pass(http: httpx2.Client) -> None:
    lines = b'{"id":"good","prompt":"hello"}\n{"id":"bad","other":17}\n' + CANARY.encode()
    body = http.post(PATH, content=lines, headers={"Content-Type": "application/x-ndjson"}).json()
    good, bad, broken = body["messages"]
    assert good["status"] == "scored"
    assert [(each["status"], each["decision"], each["scores"]) for each in (bad, broken)] == [
        ("invalid", "unscored", {})
    ] * 2
    assert bad["reason"]
    assert body["decision"] in ("flag", "unscored")
    assert CANARY not in json.dumps(body)


@pytest.mark.parametrize(
    ("scope", "status", "says"), [(None, 401, "--scope score"), ("ingest", 403, "--scope score"), ("act", 403, "act")]
)
def test_only_a_token_of_its_scope_may_ask(url: str, engine: Engine, scope: str | None, status: int, says: str) -> None:
    with client(url, token(engine, "other", scope) if scope else None) as http:
        response = http.post(PATH, json={"prompt": CANARY})
    assert response.status_code == status
    assert says in response.json()["detail"]


def test_wrong_requests_are_refused(http: httpx2.Client, settings: Settings) -> None:
    assert http.post(PATH, content=b" \n ").status_code == 400
    for query in ("format=a%20b", "format=nope", "frmat=awry", "format=awry&format=awry"):
        assert http.post(f"{PATH}?{query}", json={"prompt": "x"}).status_code == 400
    assert http.post(PATH, content=b"x", headers={"Content-Encoding": "br"}).status_code == 415
    large = http.post(PATH, content=b"x" * (settings.ingest_max_request_bytes + 1))
    assert large.status_code == 413
    assert http.get(PATH).status_code == 405
    assert http.post("/api/v1/other").status_code == 404
    assert http.get("/readyz").status_code == 200
    metrics = http.get("/metrics").text
    assert 'awry_score_requests_total{code="415"} 1.0' in metrics
    assert CANARY not in metrics


def test_more_messages_than_may_wait_are_refused_for_good(settings: Settings, engine: Engine) -> None:
    few = settings.model_copy(update={"score_max_waiting": 3})
    with (
        serving(few, engine, lambda _: None) as address,
        client(f"http://{address}", token(engine, "g", "score")) as http,
    ):
        many = http.post(PATH, json=[{"prompt": f"hello {i}"} for i in range(4)])
        assert (many.status_code, "at most 3" in many.json()["detail"]) == (413, True)
        assert "Retry-After" not in many.headers
        assert http.post(PATH, json=[{"prompt": "hello"}] * 3).status_code == 200


def test_on_request_it_is_stored_for_the_workers(settings: Settings, engine: Engine) -> None:
    storing = settings.model_copy(update={"score_store": True})
    with serving(storing, engine, lambda _: None) as address:
        with client(f"http://{address}", token(engine, "g", "score")) as http:
            assert http.post(PATH, json={"id": "kept", "prompt": CANARY}).status_code == 200
        (file,) = (settings.state_dir / "spool").glob("*.jsonl")
        (line,) = file.read_bytes().splitlines()
    record = decode_line(line)
    assert record is not None
    assert json.loads(record.payload or b"")["id"] == "kept"


def test_a_probe_in_shadow_decides_nothing(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    loud = save_probe(make_probe(bootstrap.load_model(settings), "loud", threshold=-1e6), tmp_path)
    both = settings.model_copy(update={"probes": (str(loud),), "shadow": ("loud",)})
    with (
        serving(both, engine, lambda _: None) as address,
        client(f"http://{address}", token(engine, "g", "score")) as http,
    ):
        (verdict,) = http.post(PATH, json={"prompt": "hello"}).json()["messages"]
    assert verdict["scores"]["loud"]["flagged"] is True
    assert verdict["scores"]["loud"]["shadow"] is True
    assert verdict["decision"] == "pass"


def test_it_loads_what_the_registry_calls_live(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    of_registry = settings.model_copy(update={"probes": ("registry:live",)})
    with (
        pytest.raises(SettingsError, match="no probe of the registry that is live"),
        serving(of_registry, engine, lambda _: None),
    ):
        pass
    card = save_probe(make_probe(bootstrap.load_model(settings), "quiet", threshold=1e6), tmp_path)
    with engine.begin() as connection:
        entry, _ = registration.register_files(connection, str(card), ANNA)
        probe_registry.promote(connection, entry, "live")
    card.with_suffix(".safetensors").unlink()  # the registry has its own
    with (
        serving(of_registry, engine, lambda _: None) as address,
        client(f"http://{address}", token(engine, "g", "score")) as http,
    ):
        (verdict,) = http.post(PATH, json={"prompt": "hello"}).json()["messages"]
    assert verdict["scores"]["quiet"]["digest"] == entry.digest
    assert verdict["decision"] == "pass"
