"""What runs the model, by the setting `engine`, and the probes that it scores.

Contract: `check_engine` is for before anything is loaded; `open_text` gives the model's text side for vLLM, which loads
the weights itself. `load_engine` gives the engine with the probes that are named, or every shipped one that fits; each
is checked against the model, accepted by the engine's plan and replayed through the engine, unless an earlier start did
so under the same conditions. Raises SettingsError, EngineError and ProbeMismatchError that name the setting or the
probe.

A shipped probe of responses is loaded only where it is named: of messages without one it can say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from monitor.errors import SettingsError
from monitor.service.reads import costs
from monitor.service.start_checks import StartChecks
from monitor.settings import Settings
from probes.card import Probe, load_probe, shipped_probes
from probes.engines.base import Engine
from probes.engines.transformers import TransformersEngine
from probes.errors import ProbeMismatchError
from probes.identity import check_identity, replay_references
from probes.model.adapters import AdapterSpec
from probes.model.load import ChatModel
from probes.model.unloaded import UnloadedChat
from probes.progress import Progress, silent

# What vLLM does otherwise: (setting, the value that it is left at, what to write in its place).
_NOT_FOR_VLLM = (
    ("mitigate", "off", "vLLM gives no way to change activations of single messages here: use engine=transformers"),
    ("device", "auto", "vLLM takes what it was built for; CUDA_VISIBLE_DEVICES chooses among devices"),
    ("device_map", None, "write vllm_args tensor_parallel_size=N"),
    ("quantization", None, "write vllm_args quantization=fp8, or another of vLLM's own"),
    ("attention", None, "vLLM chooses it; vllm_args attention_backend=NAME sets it"),
)


def check_engine(settings: Settings) -> None:
    """Raise for an engine that is not installed, or that other settings do not go with, before a model is looked at."""
    if settings.engine == TransformersEngine.name:
        return
    from probes.engines.vllm_args import check_args, installed_version, read_args

    for name, plain, instead in _NOT_FOR_VLLM:
        value = getattr(settings, name)
        if value != plain:
            raise SettingsError(f"{name}: {value} cannot be had with engine={settings.engine}: {instead}")
    check_args(read_args(settings.vllm_args))
    installed_version()


def open_text(
    settings: Settings, adapters: Sequence[AdapterSpec], template: str | None, progress: Progress = silent
) -> ChatModel:
    """The model for an engine that loads the weights itself."""
    from probes.model.unloaded import open_unloaded

    return open_unloaded(
        settings.model,
        settings.state_dir,
        engine=settings.engine,
        adapters=adapters,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
        special_tokens=settings.special_tokens,
        chat_template=template,
        progress=progress,
    )


def load_engine(settings: Settings, chat: ChatModel, progress: Progress = silent) -> tuple[Engine, list[Probe]]:
    """See the module; `chat` is that of `bootstrap.open_model`."""
    engine: Engine
    if isinstance(chat, UnloadedChat):
        engine, probes = _vllm(settings, chat, progress)
    else:
        engine = TransformersEngine(chat)
        probes = list(_chosen(settings, chat).values())
        engine.plan({probe.name: probe.reader for probe in probes}).check()
        for line in costs(probes, chat.layout.n_blocks):
            progress(line)
    try:
        _replay(settings, engine, probes, progress)
    except BaseException:
        engine.close()
        raise
    return engine, probes


def _vllm(settings: Settings, chat: UnloadedChat, progress: Progress) -> tuple[Engine, list[Probe]]:
    from probes.engines.vllm import VllmOptions, open_engine, plan_for
    from probes.engines.vllm_args import read_args

    args = read_args(settings.vllm_args)
    chosen = _chosen(settings, chat)
    plan = plan_for(chat, {probe.name: probe.reader for probe in chosen.values()}, args)
    if not settings.probes:
        chosen = {source: probe for source, probe in chosen.items() if probe.name in plan.accepted}
        for name, reason in plan.refused.items():
            progress(f"without the shipped probe {name}: {reason}")
    if settings.probes or not chosen:
        plan.check()
    options = VllmOptions(
        settings.state_dir,
        args,
        max_tokens=settings.max_tokens,
        trust_remote_code=settings.trust_remote_code,
    )
    engine = open_engine(chat, {source: probe.reader for source, probe in chosen.items()}, options, progress)
    return engine, list(chosen.values())


def _chosen(settings: Settings, chat: ChatModel) -> dict[str, Probe]:
    """The probes by what finds them: those named, or the shipped ones that fit."""
    if settings.probes:
        found = {name: load_probe(name) for name in settings.probes}
        for probe in found.values():
            check_identity(probe.card, chat)
    else:
        found = dict(_fitting(chat))
        if not found:
            raise SettingsError(
                f"probes: no shipped probe was made for {chat.name} with this adapter; fit one with awry fit"
            )
    names = [p.name for p in found.values()]
    if len(set(names)) != len(settings.probes or names):
        raise SettingsError(f"probes: two of {', '.join(names)} share a name")
    unknown = set(settings.shadow) - set(names)
    if unknown:
        raise SettingsError(f"shadow: {', '.join(sorted(unknown))} not among the loaded probes {', '.join(names)}")
    return found


def _fitting(chat: ChatModel) -> Iterator[tuple[str, Probe]]:
    for name in shipped_probes():
        probe = load_probe(name)
        if probe.aggregation.span == "response":
            continue
        with suppress(ProbeMismatchError):
            check_identity(probe.card, chat)
            yield name, probe


def _replay(settings: Settings, engine: Engine, probes: Sequence[Probe], progress: Progress) -> None:
    chat = engine.chat
    checks = StartChecks(settings.state_dir, chat)
    through = "" if engine.name == TransformersEngine.name else f" through {engine.conditions}"

    def replay(probe: Probe) -> float:
        progress(f"replaying the reference scores of {probe.name}")
        return replay_references(probe, chat, engine if through else None)

    for probe in probes:
        checks.once(f"replay {probe.digest}{through}", partial(replay, probe))
    if checks.reused:
        progress("reference scores were replayed at an earlier start with this model, code and machine: not again")
