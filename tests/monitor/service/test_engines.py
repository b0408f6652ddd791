"""What runs the model, by the settings: refused before anything is loaded, and a worker that scores through vLLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from monitor.errors import SettingsError
from monitor.service import bootstrap
from monitor.service.engines import check_engine, load_engine
from monitor.service.scoring import BatchScorer
from monitor.settings import Settings, load_settings
from monitor.stream.wire import WireMessage
from probes.card import Probe, load_probe, save_probe
from probes.engines import vllm, vllm_args
from probes.engines.transformers import TransformersEngine
from probes.errors import EngineError, EngineLostError, ProbeMismatchError
from probes.identity import reference_scores
from probes.model.load import ChatModel, load_chat_model
from probes.model.unloaded import UnloadedChat
from probes.projection import Projection
from probes.scoring import directions_of
from tests.support.cli import awry, refused
from tests.support.stream.worker import MAX_TOKENS, make_probe


class PlainCapture:
    """Stands for vLLM: values from transformers, or an error."""

    def __init__(self, chat: ChatModel, probes: Sequence[Probe]) -> None:
        self.projection = Projection(chat.layout, directions_of([probe.reader for probe in probes]), chat.device)
        self.breaks: Exception | None = None

    def collect(self, _llm: Any, prompts: Sequence[Sequence[int]], *, lora_request: Any = None) -> list[Tensor]:
        del lora_request
        if self.breaks is not None:
            raise self.breaks
        return [self.projection(torch.tensor([list(ids)]), None)[0].clone() for ids in prompts]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[PlainCapture]:
    """vLLM is there, and what opens it gives awry's engine over plain passes, which are collected here."""
    made: list[PlainCapture] = []

    def open_engine(chat: UnloadedChat, cards: Any, options: vllm.VllmOptions, _progress: Any) -> vllm.VllmEngine:
        probes = [load_probe(source) for source in cards]
        plain = load_chat_model(chat.source, options.state, dtype="float32", device="cpu")
        made.append(PlainCapture(plain, probes))
        directions = directions_of([probe.reader for probe in probes])
        return vllm.VllmEngine(chat, object(), made[-1], directions, "0.32.0", options.args, None)

    monkeypatch.setattr(vllm, "open_engine", open_engine)
    monkeypatch.setattr(vllm_args, "version", lambda _: "0.32.0")
    return made


@pytest.fixture
def card(tiny_folder: Path, tmp_path: Path) -> Path:
    chat = load_chat_model(str(tiny_folder / "tiny-chat"), tmp_path / "state", dtype="float32", device="cpu")
    probe = make_probe(chat, aggregation="max_rolling_mean(4, turns)")
    references = reference_scores(chat, probe.reader)
    probe.card = probe.card.model_copy(update={"references": references, "tolerance": 0.01})
    return save_probe(probe, tmp_path / "cards")


def settings(folder: Path, tmp_path: Path, **more: Any) -> Settings:
    return load_settings(
        model=str(folder / "tiny-chat"), state_dir=tmp_path / "state", engine="vllm", dtype="float32", **more
    )


def test_the_default_is_transformers() -> None:
    assert load_settings().engine == "transformers"
    check_engine(load_settings(vllm_args=("no sense",)))  # said for the other engine


def test_an_unknown_engine_is_refused_by_its_field() -> None:
    with pytest.raises(SettingsError, match=r"^engine \(flag\): must be 'transformers' or 'vllm'"):
        load_settings(engine="tgi")


def test_vllm_that_is_not_installed_is_refused_with_the_file_that_installs_it(tmp_path: Path) -> None:
    message = refused(awry("run", "--engine", "vllm", "--state-dir", tmp_path))
    assert "engine: vllm is not installed beside awry" in message
    assert "deploy/vllm/worker.requirements.txt" in message


def test_a_version_that_was_not_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_args, "version", lambda _: "0.33.0")
    with pytest.raises(EngineError, match=r"vllm 0\.33\.0 was not run"):
        check_engine(load_settings(engine="vllm"))


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("mitigate", "flagged", "use engine=transformers"),
        ("device", "cuda:1", "CUDA_VISIBLE_DEVICES"),
        ("device_map", "auto", "tensor_parallel_size"),
        ("quantization", "fp8", "vllm_args quantization"),
        ("attention", "eager", "attention_backend"),
    ],
)
def test_settings_that_do_not_go_with_vllm_are_refused(name: str, value: str, instead: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: {value} cannot be had with engine=vllm.*{instead}"):
        check_engine(load_settings(engine="vllm", **{name: value}))


def test_an_argument_that_could_make_a_wrong_score_is_refused_by_the_command(tmp_path: Path) -> None:
    given = ("--engine", "vllm", "--vllm-arg", "max_num_seqs=4", "--vllm-arg", "kv_cache_dtype=fp8")
    message = refused(awry("run", *given, "--state-dir", tmp_path))
    assert "vllm_args: kv_cache_dtype=fp8: a quantised KV cache" in message


def wire(*texts: str) -> list[WireMessage]:
    return [WireMessage(f"m{n}", [{"role": "user", "content": text}]) for n, text in enumerate(texts)]


TEXTS = ("Hello there", "What is this?", "A long one. " * 9, "Hello there")


def test_a_worker_scores_through_vllm_as_through_transformers(
    tiny_folder: Path, tmp_path: Path, card: Path, opened: list[PlainCapture]
) -> None:
    said: list[str] = []
    of = settings(tiny_folder, tmp_path, probes=(str(card),), max_tokens=MAX_TOKENS)
    chat = bootstrap.open_model(of, said.append)
    assert isinstance(chat, UnloadedChat)
    engine, probes = load_engine(of, chat, said.append)
    assert "replaying the reference scores of drift" in "\n".join(said)
    assert engine.label == "vllm 0.32.0"
    found = bootstrap.scorer_of(of, engine, probes)(wire(*TEXTS))
    plain = load_chat_model(str(tiny_folder / "tiny-chat"), of.state_dir, dtype="float32", device="cpu")
    wanted = BatchScorer(plain, probes, token_budget=256, max_tokens=MAX_TOKENS, skip_over_long=False)(wire(*TEXTS))
    assert [o.status for o in found] == ["scored"] * 4
    for one, other in zip(found, wanted, strict=True):
        assert one.scores[0].score == pytest.approx(other.scores[0].score, abs=1e-4)
    assert len(opened) == 1


def test_references_are_replayed_through_the_engine_and_once_for_each_set_up(
    tiny_folder: Path, tmp_path: Path, card: Path, opened: list[PlainCapture]
) -> None:
    def start(**more: Any) -> list[str]:
        said: list[str] = []
        of = settings(tiny_folder, tmp_path, probes=(str(card),), **more)
        load_engine(of, bootstrap.open_model(of), said.append)
        return [line for line in said if line.startswith("re")]

    replays, again = ["replaying the reference scores of drift"], "not again"
    assert start() == replays
    assert again in start()[0]
    assert start(vllm_args=("max_num_seqs=3",)) == replays
    assert again in start(vllm_args=("max_num_seqs=3",))[0]


def test_a_vllm_whose_scores_are_others_is_refused(
    tiny_folder: Path, tmp_path: Path, card: Path, opened: list[PlainCapture], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_collect = PlainCapture.collect

    def shifted(self: PlainCapture, llm: Any, prompts: Any, *, lora_request: Any = None) -> list[Tensor]:
        return [values + 0.05 for values in plain_collect(self, llm, prompts, lora_request=lora_request)]

    monkeypatch.setattr(PlainCapture, "collect", shifted)
    of = settings(tiny_folder, tmp_path, probes=(str(card),))
    with pytest.raises(ProbeMismatchError, match=r"differ by 0\.05, the card allows 0\.01.*by vllm 0\.32\.0"):
        load_engine(of, bootstrap.open_model(of))


def test_a_probe_of_another_model_is_refused_before_vllm_is_loaded(
    tiny_folder: Path, tmp_path: Path, card: Path, opened: list[PlainCapture]
) -> None:
    of = settings(tiny_folder, tmp_path, probes=("harmful-request",))
    with pytest.raises(ProbeMismatchError, match="harmful-request: revision is"):
        load_engine(of, bootstrap.open_model(of))
    assert opened == []


class EngineDeadError(Exception):
    """Called as vLLM's own."""


def test_an_engine_that_ended_ends_the_worker_and_fails_no_message(
    tiny_folder: Path, tmp_path: Path, card: Path, opened: list[PlainCapture]
) -> None:
    of = settings(tiny_folder, tmp_path, probes=(str(card),))
    engine, probes = load_engine(of, bootstrap.open_model(of))
    scorer: Callable[..., Any] = bootstrap.scorer_of(of, engine, probes)
    opened[0].breaks = ValueError("one bad message")
    assert [o.status for o in scorer(wire("a", "b"))] == ["failed", "failed"]
    opened[0].breaks = EngineDeadError("gone")
    with pytest.raises(EngineLostError, match="vllm ended while it ran"):
        scorer(wire("c"))


def test_an_engine_or_a_model_will_do(tiny_folder: Path, tmp_path: Path, card: Path) -> None:
    plain = load_chat_model(str(tiny_folder / "tiny-chat"), tmp_path / "state", dtype="float32", device="cpu")
    probes = [load_probe(card)]
    options: dict[str, Any] = {"token_budget": 256, "max_tokens": MAX_TOKENS, "skip_over_long": False}
    by_model, by_engine = (BatchScorer(each, probes, **options) for each in (plain, TransformersEngine(plain)))
    assert [o.scores for o in by_model(wire(*TEXTS))] == [o.scores for o in by_engine(wire(*TEXTS))]
