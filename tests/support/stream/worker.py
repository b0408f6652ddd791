"""A worker's parts made in code: a tiny chat model, probes on it, JSON lines, a checkpoint on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import Engine

from alerts.lifecycle.lifecycle import Opened
from monitor.service.mitigation import Mitigator
from monitor.service.policy import Policy, Tally
from monitor.service.scoring import BatchScorer
from monitor.service.worker import Worker
from monitor.stream.jsonl import JsonLines
from monitor.stream.parse import parse
from monitor.stream.sinks import Outputs
from monitor.stream.sinks.jsonl import JsonLinesSink
from monitor.stream.wire import WireMessage
from probes.calibration import Calibration
from probes.capture.aggregation import parse_aggregation
from probes.capture.sites import parse_site, site_width
from probes.card import Card, DirectionCard, MitigationCard, Probe, save_probe
from probes.directions import Direction
from probes.evaluation import Interval
from probes.identity import reference_scores
from probes.model.load import ChatModel, load_chat_model
from probes.projection import Projection
from probes.reading import Conversation, score_conversations
from probes.scoring import Reader
from storage.known import ScoredBy
from storage.writer import register_probe
from tests.support.models.tiny import saved_tiny

MAX_TOKENS = 128


def make_probe(
    chat: ChatModel,
    name: str = "drift",
    *,
    threshold: float = 0.0,
    aggregation: str = "last_prompt",
    sites: Sequence[str] = ("residual[1]",),
    recipe: str | None = None,
) -> Probe:
    """A probe along random directions: every message gets a score, none means anything."""
    draw = np.random.default_rng(7)
    directions = []
    for written in sites:
        site = parse_site(written)
        width = site_width(site, chat.layout)
        directions.append(Direction(site, draw.standard_normal(width), draw.standard_normal(width), 1.0))
    card = Card(
        name=name,
        version=1,
        created="2026-03-01",
        description="for tests",
        identity=chat.identity,
        aggregation=aggregation,
        directions=[DirectionCard(site=str(d.site), norm=d.norm, sigma=d.sigma) for d in directions],
        safetensors_sha256="0" * 64,
        calibration=_calibration(threshold),
        evaluation={},
        references=reference_scores(chat, Reader(tuple(directions), parse_aggregation(aggregation))),
        tolerance=0.01,
        mitigation=recipe
        and MitigationCard(
            site=str(directions[0].site),
            mode=recipe,
            strength=1.0,
            positions="all",
            sigma=1.0,
            cosine_to_detector=1.0,
        ),
    )
    return Probe(card, directions, directions[:1] if recipe else ())


def _calibration(threshold: float) -> Calibration:
    return Calibration(threshold, 0.01, Interval(0.0, 0.0, 0.1, 30), False, 30, "0" * 64, "none", "2026-03-01", ())


def scores_of(chat: ChatModel, probe: Probe, prompts: Sequence[str]) -> list[float]:
    """What the probe gives to single messages, without the service."""
    talks = [Conversation([{"role": "user", "content": prompt}]) for prompt in prompts]
    return [float(score_conversations(chat, [probe], [talk], max_tokens=MAX_TOKENS)[0, 0]) for talk in talks]


def wire(message_id: str = "m", prompt: str | None = "hello", **more: Any) -> dict[str, Any]:
    return {"id": message_id, "prompt": prompt, **more}


def wire_message(**values: Any) -> WireMessage:
    (message,) = parse(json.dumps(values).encode())
    assert isinstance(message, WireMessage), message
    return message


def lines(path: Path, messages: Iterable[dict[str, Any] | bytes]) -> Path:
    """JSON lines; bytes go in as they are."""
    path.write_bytes(b"".join((m if isinstance(m, bytes) else json.dumps(m).encode()) + b"\n" for m in messages))
    return path


@dataclass
class Run:
    tally: Tally
    opened: list[Opened]


def run_worker(
    engine: Engine,
    chat: ChatModel,
    probes: Sequence[Probe],
    path: Path,
    *,
    max_bytes: int = 4096,
    over_long: str = "truncate_left",
    answers: Path | None = None,
    verdicts: Path | None = None,
    dead_letters: Path | None = None,
    also_plain: bool = False,
    **policy: Any,
) -> Run:
    """One file through one worker, from its first line to its last."""
    with engine.begin() as connection:
        for probe in probes:
            register_probe(connection, probe.digest, probe.name, 1, "hash", {})
    source = JsonLines(str(path), name="stream", max_bytes=max_bytes)
    scorer = BatchScorer(chat, probes, token_budget=256, max_tokens=MAX_TOKENS, skip_over_long=over_long == "skip")
    settings = Policy(
        probe_names=tuple(p.name for p in probes),
        model="tiny",
        **{
            "destinations": ("console",),
            "batch_messages": 8,
            "scored_by": tuple(ScoredBy(p.name, p.digest) for p in probes),
            **policy,
        },
    )
    opened: list[Opened] = []
    outputs = Outputs(
        verdicts=JsonLinesSink(str(verdicts), "verdicts_out") if verdicts else None,
        answers=JsonLinesSink(str(answers), "answers_out") if answers else None,
        dead_letters=JsonLinesSink(str(dead_letters), "dead_letters_out") if dead_letters else None,
    )
    mitigator = Mitigator(chat, probes[0], also_plain=also_plain, max_new_tokens=4) if answers else None
    worker = Worker(
        source,
        scorer,
        engine,
        settings,
        mitigator=mitigator,
        outputs=outputs,
        on_batch=lambda _tally, new, _lag: opened.extend(new),
    )
    try:
        return Run(worker.run(), opened)
    finally:
        source.close()
        outputs.close()


def checkpoint(folder: Path) -> Path:
    """The tiny model as a checkpoint that `awry run --model FOLDER` loads, with a probe that flags everything."""
    where = folder / "tiny-chat"
    saved_tiny(where)
    chat = load_chat_model(str(where), folder)
    save_probe(make_probe(chat, threshold=-1e6, recipe="ablate"), folder)
    return where


def breaking(monkeypatch: pytest.MonkeyPatch, chat: ChatModel, marker: str, says: str = "") -> list[int]:
    """Forwards over a message with `marker` raise an error that quotes it. Returns the sizes of the calls."""
    bad = chat.token_ids(marker)
    sizes: list[int] = []
    forward = Projection.__call__

    def call(self: Projection, ids: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
        sizes.append(len(ids))
        for row in ids.tolist():
            if any(row[i : i + len(bad)] == bad for i in range(len(row))):
                raise RuntimeError(f"out of memory while reading {says} {marker}")
        return forward(self, ids, *others, **more)

    monkeypatch.setattr(Projection, "__call__", call)
    return sizes
