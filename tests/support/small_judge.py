"""SmolLM2 behind an OpenAI-compatible endpoint on loopback: the model itself as the judge.

With `response_format` the answer is constrained, as guided decoding of a model server does it: the object's form is
given, and the model chooses between true and false. Without it the model writes what it likes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from probes.model.load import ChatModel
from probes.steer.generation import generate
from tests.support.judge_server import JudgeServer, Said, judge_server

_LOCK = threading.Lock()


@contextmanager
def small_judge(chat: ChatModel) -> Iterator[JudgeServer]:
    """A server that answers with this model."""

    def says(request: dict[str, Any]) -> Said:
        # One at a time: the server has a thread a connection, and the model is one.
        with _LOCK:
            return Said(_constrained(chat, request) if "response_format" in request else _free(chat, request))

    with judge_server() as server:
        server.says = says
        yield server


def probability(chat: ChatModel, messages: list[dict[str, str]]) -> float:
    """How likely `true` is against `false`, after the object's begin."""
    ids = chat.token_ids(chat.render(messages) + '{"harmful": ')
    true, false = (chat.token_ids(word)[0] for word in ("true", "false"))
    with torch.inference_mode():
        logits = chat.model(torch.tensor([ids], device=chat.device)).logits[0, -1]
    return float(torch.softmax(logits[[true, false]].float(), 0)[0])


def _constrained(chat: ChatModel, request: dict[str, Any]) -> str:
    chance = probability(chat, request["messages"])
    harmful = chance > 0.5
    return f'{{"harmful": {str(harmful).lower()}, "confidence": {max(chance, 1 - chance):.3f}}}'


def _free(chat: ChatModel, request: dict[str, Any]) -> str:
    prompt = chat.render(request["messages"])
    return generate(chat, [prompt], max_new_tokens=min(48, int(request.get("max_tokens", 48))))[0].text
