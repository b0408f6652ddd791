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

import numpy as np

from probes.card import Probe
from probes.vllm.claims import KEY_VARIABLE, MAX_ATTRIBUTES_BYTES, kept_attributes, key_of, verified
from probes.vllm.collect import Collector, Values
from probes.vllm.score import Maker, Said
from probes.vllm.settings import ConnectorSettings
from probes.vllm.sinks import VALUES, Sink

_ASIDE = ("tenant", "user", "conversation_id", "trace_id")
_FINISHES = {"STOPPED": "stop", "LENGTH_CAPPED": "length", "ABORTED": "abort", "IGNORED": "error", "ERROR": "error"}


# What vLLM's front end puts around the id that the client sees: before it the number of a choice (n), behind it that of
# a prompt (completions take several), and letters that make it the only one.
_SUFFIX = re.compile(r"-[0-9a-f]{8}$")
_CHOICE = re.compile(r"^\d+_(?=(?:chatcmpl|cmpl|resp)-)")
_PROMPT = re.compile(r"^(cmpl-.+)-\d+$")


def public_id(request_id: str) -> str:
    """The id of a request as its client has it."""
    return _PROMPT.sub(r"\1", _CHOICE.sub("", _SUFFIX.sub("", request_id)))


class Requests:
    """See the module."""

    def __init__(
        self,
        collector: Collector,
        maker: Maker,
        sink: Sink | None,
        settings: ConnectorSettings,
        *,
        model: str,
        recipe: Probe | None = None,
    ) -> None:
        self._collector = collector
        self._maker = maker
        self._sink = sink
        self._settings = settings
        self._model = model
        self._key = key_of() if os.environ.get(KEY_VARIABLE) else None
        self._running: dict[str, Any] = {}
        self._recipe = recipe
        # The first token that is steered of a request, and why.
        self._steered: dict[str, tuple[int, str]] = {}
        self._judged: set[str] = set()

    def begin(self, request: Any) -> None:
        """A request arrived."""
        self._running[request.request_id] = request
        self._collector.begin(request.request_id, request.num_prompt_tokens)
        if self._recipe is not None and _given(request).get("steer") is True and self._steers(request):
            whole = self._recipe.card.mitigation is not None and self._recipe.card.mitigation.positions == "all"
            self._steered[request.request_id] = (0 if whole else request.num_prompt_tokens - 1, "asked")

    def _steers(self, request: Any) -> bool:
        """Whether the recipe is one for what the request runs with."""
        return self._recipe is not None and self._maker.why_not(self._recipe, request.lora_request) is None

    def steered_from(self, request_id: str) -> int | None:
        """The first token of a request that is steered; None where none is."""
        found = self._steered.get(request_id)
        return None if found is None else found[0]

    def progress(self) -> None:
        """Partial readings of answers that have grown far enough, and requests whose prompt is flagged."""
        if self._recipe is not None and self._settings.steer == "flagged":
            self._flag()
        every = self._settings.partial_every
        if not every:
            return
        for name, request in self._running.items():
            held = self._collector.held(name)
            answered = 0 if held is None else min(held.there, request.num_tokens - 1) - held.n_prompt
            if held is not None and answered - held.told >= every:
                held.told = answered - answered % every
                tokens = held.n_prompt + held.told
                self._put("partial", request, held.values[:tokens].copy(), held.cached, None)

    def _flag(self) -> None:
        """Steer, from the next token on, what answers a prompt that scores above a threshold."""
        for name, request in self._running.items():
            held = self._collector.held(name)
            if held is None or name in self._judged or name in self._steered:
                continue
            if held.there < held.n_prompt:
                continue
            self._judged.add(name)
            if not self._steers(request):
                continue
            ids = list(request.all_token_ids)[: held.n_prompt]
            said = self._maker(held.values[: held.n_prompt], ids, held.n_prompt, request.lora_request)
            if any(_is_flagged(each) for each in said):
                self._steered[name] = (held.n_prompt, "flagged")

    def finish(self, request: Any) -> None:
        """It ended, of itself or not."""
        name = request.request_id
        self._running.pop(name, None)
        self._judged.discard(name)
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
        ids, n_prompt = np.array(request.all_token_ids, dtype=np.int32), request.num_prompt_tokens
        about, lora = self._about(request), request.lora_request
        steered = self._steered.get(request.request_id)
        if kind == "final":
            self._steered.pop(request.request_id, None)
        if steered is not None and self._recipe is not None:
            about["steered"] = {"recipe": self._recipe.recipe, "why": steered[1]}

        def make() -> dict[str, Any]:
            said = self._maker(values, ids.tolist(), n_prompt, lora)
            answered = max(0, len(values) - n_prompt)
            counts = {"prompt": n_prompt, "response": answered, "cached": min(cached, n_prompt)}
            made = {"kind": kind, "finish": why, "tokens": counts, **about, **_scores(said)}
            if any(each.value is not None and each.value.turns for each in said):
                made["roles"] = self._maker.roles(ids.tolist(), n_prompt)
            return made

        # What it holds until then: the values, the ids, and what the client sent along, at most.
        self._sink.put(make, values.nbytes + ids.nbytes + 4 * MAX_ATTRIBUTES_BYTES)

    def _about(self, request: Any) -> dict[str, Any]:
        settings = self._settings
        given = _given(request)
        about: dict[str, Any] = {
            "id": public_id(request.request_id),
            "request": request.request_id,
            "model": self._model,
        }
        about |= {each: given[each] for each in _ASIDE if isinstance(given.get(each), str)}
        if (attributes := kept_attributes(given.get("attributes"))) is not None:
            about["attributes"] = attributes
        sure = {name: str(given[name]) for name in verified(given, self._key)}
        sure |= {name: value for name in ("tenant", "user") if (value := getattr(settings, name)) is not None}
        lora = request.lora_request
        if lora is not None:
            about["model"] = lora.lora_name
        return about | sure | {"verified": sorted(sure)}


def _given(request: Any) -> dict[str, Any]:
    """What the client sent along."""
    params = request.kv_transfer_params
    given = params.get("awry") if isinstance(params, dict) else None
    return given if isinstance(given, dict) else {}


def _is_flagged(said: Said) -> bool:
    if said.value is None:
        return False
    score = said.probe.card.calibration.score(said.value.value, said.value.tokens)
    return score > said.probe.card.threshold


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
