"""The cards' reference scores, replayed through a running server of vLLM: what it reads now against what a card says.

Contract: `compare(server, probes, chat, readings, served)` sends each reference conversation as token ids to the
server's `/v1/completions`, for one new token, waits for its readings, and gives a `Compared` for each probe.
`readings()` gives the payloads that the server has published by now. A probe of responses is not compared, since the
interface cannot send an answer along, and says so. Raises ServerCheckError where the server refuses or publishes
nothing.

The token ids are awry's own rendering: that the server's chat template renders as awry does is not shown by this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from monitor.errors import MonitorError
from monitor.readings.schema import FINAL, Reading, ReadingError, loads
from probes.capture.batches import encode
from probes.card import Probe
from probes.model.load import ChatModel

# As OpenAI's own client reads it; a server without --api-key takes anything.
KEY_VARIABLE = "OPENAI_API_KEY"
_OF_RESPONSES = "a probe of responses: an answer cannot be sent along; awry run --engine vllm compares it at its start"


class ServerCheckError(MonitorError):
    """A server that cannot be asked, or whose readings do not arrive."""


@dataclass(frozen=True)
class Compared:
    """`worst` is the largest difference to a reference score, in class gaps; None where `why_not` says why."""

    probe: str
    tolerance: float
    worst: float | None = None
    why_not: str | None = None

    @property
    def agrees(self) -> bool:
        return self.worst is not None and self.worst <= self.tolerance


class CompletionServer:
    """A server by its address, such as http://127.0.0.1:8000."""

    def __init__(self, url: str, *, seconds: float = 60.0) -> None:
        headers = {"authorization": f"Bearer {key}"} if (key := os.environ.get(KEY_VARIABLE)) else {}
        root = url.rstrip("/").removesuffix("/v1")
        try:
            self._client = httpx2.Client(base_url=root, headers=headers, timeout=seconds, trust_env=False)
        except (httpx2.InvalidURL, ValueError):
            raise ServerCheckError(f"server: {url} is no address; write one such as http://127.0.0.1:8000") from None
        self._url = root

    def served(self) -> str:
        """The first model that it serves."""
        try:
            return str(self._ask("GET", "/v1/models")["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise ServerCheckError(f"server: {self._url} names no model; is it vLLM's OpenAI server?") from None

    def complete(self, model: str, ids: Sequence[int]) -> str:
        """Send a prompt for one new token; the id of the request."""
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0}
        found = self._ask("POST", "/v1/completions", body)
        if not isinstance(found.get("id"), str):
            raise ServerCheckError("server: its answer has no id; is it vLLM's OpenAI server?")
        return str(found["id"])

    def close(self) -> None:
        self._client.close()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, json=body)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ServerCheckError(
                f"server: {self._url} does not answer ({type(error).__name__}); write its address, such as "
                "http://127.0.0.1:8000"
            ) from None
        if response.status_code == 401:
            raise ServerCheckError(f"server: {self._url} asks for its API key; set {KEY_VARIABLE}")
        if response.status_code == 404 and body is not None:
            raise ServerCheckError(
                f"server: {self._url} serves no model {body['model']}; name it as the server does (--served)"
            )
        if response.status_code != 200:
            raise ServerCheckError(f"server: {self._url} refuses {path} with {response.status_code}; see its log")
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ServerCheckError(f"server: {self._url} answers with no JSON object; is it vLLM's OpenAI server?")
        return found


def compare(
    server: CompletionServer,
    probes: Sequence[Probe],
    chat: ChatModel,
    readings: Callable[[], Iterable[bytes | str]],
    served: str,
    *,
    seconds: float = 60.0,
) -> list[Compared]:
    """See the module; `served` is the model's name at the server, `seconds` how long its readings are waited for."""
    wanted: dict[str, list[tuple[str, float]]] = {}
    asked: dict[tuple[int, ...], str] = {}
    for probe in probes:
        if probe.aggregation.span == "response":
            continue
        wanted[probe.name] = []
        for reference in probe.card.references:
            ids = encode(chat, reference.messages, spans=True).ids
            if ids not in asked:
                asked[ids] = server.complete(served, ids)
            wanted[probe.name].append((asked[ids], reference.score))
    found = _wait(set(asked.values()), readings, seconds)
    return [_compared(probe, wanted.get(probe.name), found) for probe in probes]


def _wait(names: set[str], readings: Callable[[], Iterable[bytes | str]], seconds: float) -> dict[str, Reading]:
    until = time.monotonic() + seconds
    while True:
        found = {each.id: each for each in _finals(readings()) if each.id in names}
        if len(found) == len(names):
            return {str(name): each for name, each in found.items()}
        if time.monotonic() > until:
            raise ServerCheckError(
                f"source: {len(names) - len(found)} of {len(names)} readings did not arrive within {seconds:g} s; "
                "name the topic or file that the server's connector.json names under readings"
            )
        time.sleep(0.5)


def _finals(payloads: Iterable[bytes | str]) -> Iterable[Reading]:
    for payload in payloads:
        try:
            reading = loads(payload)
        except ReadingError:
            continue
        if reading.kind == FINAL:
            yield reading


def _compared(probe: Probe, wanted: list[tuple[str, float]] | None, found: dict[str, Reading]) -> Compared:
    tolerance = probe.card.tolerance
    if wanted is None:
        return Compared(probe.name, tolerance, why_not=_OF_RESPONSES)
    if not wanted:
        return Compared(probe.name, tolerance, why_not="its card has no references; write it again with awry fit")
    worst = 0.0
    for name, score in wanted:
        reading = found[name]
        said = {each.name: each for each in reading.probes}.get(probe.name)
        if said is None:
            reasons = [each.reason for each in reading.not_scored if each.name == probe.name]
            return Compared(probe.name, tolerance, why_not=reasons[0] if reasons else "the server does not read it")
        if said.digest != probe.digest:
            why = f"the server reads another version of it ({said.digest}, here {probe.digest})"
            return Compared(probe.name, tolerance, why_not=why)
        worst = max(worst, abs(said.value - score))
    return Compared(probe.name, tolerance, worst)


def as_rows(compared: Sequence[Compared]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            "probe": each.probe,
            "agrees": each.agrees,
            "largest_difference": each.worst,
            "tolerance": each.tolerance,
            "not_compared": each.why_not,
        }
        for each in compared
    ]
