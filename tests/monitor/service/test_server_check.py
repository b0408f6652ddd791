"""`monitor.service.server_check` on the faults of a server; that vLLM agrees is tested in tests/vllm_server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from monitor.cli.operations.check_server import lines_of
from monitor.readings.schema import FINAL, ProbeValue, Reading, dumps
from monitor.service.server_check import Compared, CompletionServer, ServerCheckError, compare
from probes.card import Probe, load_probe
from probes.model.builtin import SMOLLM2
from probes.model.load import ChatModel
from probes.model.unloaded import open_unloaded
from tests.support.http_server import QuietHandler, serving

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def smol(state: Path) -> ChatModel:
    return open_unloaded(SMOLLM2, state, engine="none")


@dataclass
class Fake:
    """A server that answers with `status`, and the prompts that it got."""

    status: int = 200
    answer: Any = None
    prompts: list[list[int]] = field(default_factory=list)

    @contextmanager
    def open(self) -> Iterator[CompletionServer]:
        fake = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:  # noqa: N802
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.prompts.append(body["prompt"])
                made = {"id": f"cmpl-{len(fake.prompts)}"} if fake.answer is None else fake.answer
                self.send_response(fake.status)
                self.end_headers()
                self.wfile.write(json.dumps(made).encode())

        with serving(Handler) as address:
            server = CompletionServer(f"http://{address}/v1")
            try:
                yield server
            finally:
                server.close()


def reading(number: int, probe: Probe, **more: Any) -> bytes:
    value = ProbeValue(probe.name, more.get("digest", probe.digest), more["value"], 5)
    return dumps(
        Reading("vllm 0.32.0", "0" * 32, number, FINAL, datetime.now(UTC), id=f"cmpl-{number + 1}", probes=(value,))
    )


def compared(fake: Fake, smol: ChatModel, made: Callable[[int, Probe], bytes]) -> Compared:
    probe = load_probe("harmful-request")
    with fake.open() as server:
        (found,) = compare(
            server,
            [probe],
            smol,
            lambda: [b"no reading", *(made(number, probe) for number in range(len(fake.prompts)))],
            "chat",
            seconds=1,
        )
    return found


def test_the_worst_difference_and_one_above_the_tolerance(smol: ChatModel) -> None:
    references = load_probe("harmful-request").card.references
    found = compared(Fake(), smol, lambda n, probe: reading(n, probe, value=references[n].score + (n == 2) * 0.004))
    assert found.agrees
    assert found.worst == pytest.approx(0.004)
    found = compared(Fake(), smol, lambda n, probe: reading(n, probe, value=references[n].score - 0.2))
    assert not found.agrees
    assert found.worst == pytest.approx(0.2)


def test_another_version_and_a_probe_that_the_server_does_not_read(smol: ChatModel) -> None:
    found = compared(Fake(), smol, lambda n, probe: reading(n, probe, value=0.0, digest="ab" * 8))
    assert not found.agrees
    assert "another version" in str(found.why_not)
    other = load_probe("spilled-code-response")
    found = compared(Fake(), smol, lambda n, _: reading(n, other, value=0.0))
    assert found.why_not == "the server does not read it"


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [(404, {}, "--served"), (401, {}, "OPENAI_API_KEY"), (500, {}, "500"), (200, {}, "no id"), (200, [1], "no JSON")],
)
def test_what_a_server_refuses_is_said(smol: ChatModel, status: int, answer: Any, said: str) -> None:
    with pytest.raises(ServerCheckError, match=said):
        compared(Fake(status, answer), smol, lambda n, probe: reading(n, probe, value=0.0))


def test_readings_that_do_not_arrive(smol: ChatModel) -> None:
    with pytest.raises(ServerCheckError, match="4 of 4 readings"):
        compared(Fake(), smol, lambda n, probe: reading(n + 7, probe, value=0.0))


def test_no_server() -> None:
    with pytest.raises(ServerCheckError, match="does not answer"):
        CompletionServer("http://127.0.0.1:9", seconds=2).served()


def test_a_file_is_read_from_where_it_ended(tmp_path: Any) -> None:
    file = tmp_path / "readings"
    file.write_text("old\n")
    read = lines_of(file)
    with file.open("a") as more:
        more.write("new\nhalf")
    assert read() == ["new"]
