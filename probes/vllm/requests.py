"""The requests of an engine on the scheduler's side: what is known of each, and the reading that it ends as.

Contract: `begin`, `finish` and `progress` are called by the engine's thread and return at once: what is to be computed
of a request is done by the sink's own thread, from a copy of its values. Each request ends as one final reading, also
one that is aborted before it ran. With `partial_every`, an answer that runs has a partial reading at every so many of
its tokens.

Of what a client sends along (`kv_transfer_params.awry`) tenant, user, conversation and attributes are copied, as that
of the client; what the server's own settings or the gateway's signature say is verified. None of it changes what is
scored.
"""

from __future__ import annotations

import os
import re
from typing import Any

from probes.vllm.claims import KEY_VARIABLE, key_of, verified
from probes.vllm.collect import Collector, Values
from probes.vllm.score import Maker, Said
from probes.vllm.settings import ConnectorSettings
from probes.vllm.sinks import VALUES, Sink

_ASIDE = ("tenant", "user", "conversation_id", "trace_id")
_FINISHES = {"STOPPED": "stop", "LENGTH_CAPPED": "length", "ABORTED": "abort", "IGNORED": "error", "ERROR": "error"}


# What vLLM's front end puts behind the id that the client sees, so that no two requests have one.
_SUFFIX = re.compile(r"-[0-9a-f]{8}$")


def public_id(request_id: str) -> str:
    """The id of a request as its client has it."""
    return _SUFFIX.sub("", request_id)


class Requests:
    """See the module."""

    def __init__(
        self, collector: Collector, maker: Maker, sink: Sink | None, settings: ConnectorSettings, *, model: str
    ) -> None:
        self._collector = collector
        self._maker = maker
        self._sink = sink
        self._settings = settings
        self._model = model
        self._key = key_of() if os.environ.get(KEY_VARIABLE) else None
        self._running: dict[str, Any] = {}

    def begin(self, request: Any) -> None:
        """A request arrived."""
        self._running[request.request_id] = request
        self._collector.begin(request.request_id, request.num_prompt_tokens)

    def progress(self) -> None:
        """Partial readings of answers that have grown far enough."""
        every = self._settings.partial_every
        if not every:
            return
        for name, request in self._running.items():
            held = self._collector.held(name)
            answered = 0 if held is None else min(held.known, request.num_tokens - 1) - held.n_prompt
            if held is not None and answered - held.told >= every:
                held.told = answered - answered % every
                tokens = held.n_prompt + held.told
                self._put("partial", request, held.values[:tokens].copy(), held.cached, None)

    def finish(self, request: Any) -> None:
        """It ended, of itself or not."""
        name = request.request_id
        self._running.pop(name, None)
        held = self._collector.held(name)
        why = _FINISHES.get(request.status.name.removeprefix("FINISHED_"), "error")
        if held is None:
            return
        # The last token was never read by the model.
        tokens = max(0, request.num_tokens - 1) if request.num_tokens > request.num_prompt_tokens else held.known
        self._collector.finish(name, tokens, lambda values: self._put("final", request, values, held.cached, why))

    def close(self) -> None:
        """Give out what is held."""
        for request in list(self._running.values()):
            self.finish(request)
        self._collector.flush()
        if self._sink is not None:
            self._sink.close()

    def _put(self, kind: str, request: Any, values: Values, cached: int, why: str | None) -> None:
        if self._sink is None:
            VALUES[public_id(request.request_id)] = values
            return
        ids, n_prompt = list(request.all_token_ids), request.num_prompt_tokens
        about, lora = self._about(request), request.lora_request

        def make() -> dict[str, Any]:
            said = self._maker(values, ids, n_prompt, lora)
            answered = max(0, len(values) - n_prompt)
            counts = {"prompt": n_prompt, "response": answered, "cached": min(cached, n_prompt)}
            return {"kind": kind, "finish": why, "tokens": counts, **about, **_scores(said)}

        self._sink.put(make, values.nbytes)

    def _about(self, request: Any) -> dict[str, Any]:
        settings = self._settings
        given = (request.kv_transfer_params or {}).get("awry")
        given = given if isinstance(given, dict) else {}
        about: dict[str, Any] = {"id": public_id(request.request_id), "model": self._model}
        about |= {name: given[name] for name in _ASIDE if isinstance(given.get(name), str)}
        if isinstance(given.get("attributes"), dict):
            about["attributes"] = given["attributes"]
        sure = {name: str(given[name]) for name in verified(given, self._key)}
        sure |= {name: value for name in ("tenant", "user") if (value := getattr(settings, name)) is not None}
        lora = request.lora_request
        if lora is not None:
            about["model"] = lora.lora_name
        return about | sure | {"verified": sorted(sure)}


def _scores(said: list[Said]) -> dict[str, Any]:
    return {
        "probes": [
            {
                "name": each.probe.name,
                "digest": each.probe.digest,
                "value": each.value.value,
                "tokens": each.value.tokens,
                "turns": [list(turn) for turn in each.value.turns],
                "parts": list(each.value.parts) if len(each.value.parts) > 1 else [],
            }
            for each in said
            if each.value is not None
        ],
        "not_scored": [{"name": each.probe.name, "reason": each.reason or ""} for each in said if each.value is None],
    }
