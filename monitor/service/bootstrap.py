"""Creates what the settings name: database, model, probes, worker.

Contract: raises early, with an error that names the setting: a schema that is behind, a probe for another model,
adapter, scale or template, a numeric stack whose reference scores differ, a mitigation without a recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.errors import SettingsError
from monitor.settings import Settings
from probes.progress import Progress, silent

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from alerts.rules.model import Rules
    from monitor.judge.judging import Judging
    from monitor.service.asking import Asking
    from monitor.service.policy import Policy
    from monitor.service.scoring import BatchScorer
    from monitor.service.worker import OnBatch, Worker
    from monitor.stream.record import Source
    from probes.capture.sites import Site
    from probes.card import Probe
    from probes.engines.base import Engine as ModelEngine
    from probes.model.adapters import AdapterSpec
    from probes.model.load import ChatModel
    from storage.known import ScoredBy


def open_database(settings: Settings, progress: Progress = silent) -> Engine:
    """An engine on the owner's server, whose schema must be at head, or on the embedded one, brought to head."""
    from storage.database import check_schema, connect, upgrade
    from storage.partitions import ensure_ahead

    engine = connect(database_url(settings, progress))
    if settings.database_url is None:
        upgrade(engine)
    else:
        check_schema(engine)
    ensure_ahead(engine)
    return engine


def database_url(settings: Settings, progress: Progress = silent) -> str:
    """The URL to connect to; starts the embedded server when none is set."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    from storage.embedded import embedded_url

    progress("starting the embedded PostgreSQL")
    return embedded_url(settings.state_dir)


def check_files(settings: Settings) -> None:
    """Raise for what is wrong in rules, expressions, cards and outputs, before a model is loaded.

    Probes of the registry are in the database, and are looked at later.
    """
    from monitor.service.engines import check_engine
    from monitor.service.registered import names_registry
    from monitor.stream.parse import Parser
    from monitor.stream.wiring import check_outputs, parse_options
    from probes.card import load_probe

    load_rules(settings)
    check_engine(settings)
    Parser(parse_options(settings))
    for name in settings.probes:
        if not names_registry(name):
            load_probe(name)
    check_outputs(settings)


def load_model(settings: Settings, progress: Progress = silent, sites: Sequence[Site] | None = None) -> ChatModel:
    """The model with its adapter at its scale; with `sites`, what they need of it."""
    from probes.model.load import load_chat_model

    adapters = _adapters(settings)
    progress(f"loading {_with_strength(settings.model, adapters)}")
    return load_chat_model(
        settings.model,
        settings.state_dir,
        adapters=adapters,
        dtype=settings.dtype,
        device=settings.device,
        attention=settings.attention,
        device_map=settings.device_map,
        quantization=settings.quantization,
        trust_remote_code=settings.trust_remote_code,
        special_tokens=settings.special_tokens,
        chat_template=_chat_template(settings),
        sites=sites,
        progress=progress,
    )


def open_model(settings: Settings, progress: Progress = silent, sites: Sequence[Site] | None = None) -> ChatModel:
    """The model for the engine that is set: loaded, or where vLLM loads it, without its weights."""
    from monitor.service.engines import check_engine, open_text

    check_engine(settings)
    if settings.engine == "transformers":
        return load_model(settings, progress, sites)
    adapters = _adapters(settings)
    progress(f"opening {_with_strength(settings.model, adapters)} for {settings.engine}")
    return open_text(settings, adapters, _chat_template(settings), progress)


def open_tokenizer(settings: Settings, progress: Progress = silent) -> ChatModel:
    """The model without its weights and without an adapter, to render and to tokenise for a server elsewhere."""
    from monitor.service.engines import open_text

    return open_text(settings, [], _chat_template(settings), progress)


def _adapters(settings: Settings) -> list[AdapterSpec]:
    from probes.model.adapters import adapter_spec

    if settings.adapter:
        return [adapter_spec(settings.adapter, settings.scale)]
    if settings.scale is not None:
        raise SettingsError("scale: there is no adapter to scale; set adapter too")
    return []


def _with_strength(model: str, adapters: Sequence[AdapterSpec]) -> str:
    return f"{model} with {adapters[0].name} x{adapters[0].scale:g}" if adapters else model


def _chat_template(settings: Settings) -> str | None:
    """The file that the setting names, as text."""
    path = settings.chat_template
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"chat_template: cannot read {path} ({why}); name a file with a Jinja template") from None
    if not text.strip():
        raise SettingsError(f"chat_template: {path} is empty; name a file with a Jinja template")
    return text


def load_probes(settings: Settings, chat: ChatModel, progress: Progress = silent) -> list[Probe]:
    """The probes of a model that is loaded: checked, and replayed (`monitor.service.engines`)."""
    from monitor.service.engines import load_engine

    return load_engine(settings, chat, progress)[1]


def register(engine: Engine, probes: list[Probe], settings: Settings) -> None:
    """Store the probes' cards beside their scores, and set the metrics of the loaded probes."""
    from monitor.service.stale import show_age
    from monitor.telemetry import metrics
    from storage.writer import register_probe

    with engine.begin() as connection:
        for probe in probes:
            card = probe.card
            # Pages and API do not show which rows it has seen, and it may be 200 kB.
            stored = card.model_dump(mode="json", exclude={"seen"})
            register_probe(connection, probe.digest, card.name, card.version, card.safetensors_sha256, stored)
    for probe in probes:
        metrics.PROBE_INFO.labels(
            probe.name, str(probe.card.version), model_label(settings), f"{probe.card.threshold:.6g}"
        ).set(1)
        show_age(probe)


def merge_adapter(settings: Settings, chat: ChatModel, probes: list[Probe]) -> None:
    """For a process that never switches the adapter off: add it to the weights, where the reference scores stay."""
    from monitor.service.start_checks import StartChecks
    from probes.errors import ProbeMismatchError
    from probes.identity import replay_references
    from probes.model import lora

    if settings.engine != "transformers" or chat.active is None or not lora.merge(chat.model):
        return
    checks = StartChecks(settings.state_dir, chat)
    try:
        for probe in probes:
            checks.once(f"replay of merged weights {probe.digest}", partial(replay_references, probe, chat))
    except ProbeMismatchError:
        # Rounding of the weights, in bfloat16.
        chat.model.unmerge_adapter()  # type: ignore[operator]


def scorer_of(settings: Settings, model: ChatModel | ModelEngine, probes: list[Probe]) -> BatchScorer:
    """What scores messages by the settings, with the ways to read no token twice that are right for the model."""
    from monitor.service.scoring import BatchScorer
    from monitor.service.start_checks import StartChecks
    from monitor.telemetry import logs

    chat = _chat_of(model)
    scorer = BatchScorer(
        model,
        probes,
        token_budget=settings.token_budget or (2048 if chat.device.type == "cpu" else 16384),
        max_tokens=settings.max_tokens,
        skip_over_long=settings.over_long == "skip",
        max_windows=settings.max_windows,
        reuse_bytes=settings.reuse_mb * 1024 * 1024,
    )
    for reason in scorer.settle(StartChecks(settings.state_dir, chat).once):
        logs.logger().warning("tokens_read_again", reason=reason)
    return scorer


def _chat_of(model: ChatModel | ModelEngine) -> ChatModel:
    from probes.engines.base import Engine as ModelEngine

    return model.chat if isinstance(model, ModelEngine) else model


@contextmanager
def building_worker(
    settings: Settings,
    engine: Engine,
    model: ChatModel | ModelEngine,
    probes: list[Probe],
    source: Source,
    on_batch: OnBatch,
    *,
    live: bool = True,
) -> Iterator[Worker]:
    """The worker with its outputs open, and the judge running where one is set; the caller closes the source. One that
    is not `live` (a replay) writes no heartbeats and asks no judge. `model` is what runs it, or a model in this process
    that is loaded."""
    from monitor.service.mitigation import Mitigator, choose_mitigator
    from monitor.service.worker import Worker
    from monitor.stream.wiring import opened_outputs

    chat = _chat_of(model)
    register(engine, probes, settings)
    mitigator = None
    if settings.mitigate != "off":
        chosen = choose_mitigator(probes, settings.mitigate_with)
        mitigator = Mitigator(
            chat,
            chosen,
            also_plain=settings.also_plain,
            max_new_tokens=settings.max_new_tokens,
            max_tokens=settings.max_tokens,
        )
    if mitigator is None:
        merge_adapter(settings, chat, probes)
    scorer = scorer_of(settings, model, probes)
    policy = replace(policy_of(settings, probes, chat), heartbeats=live)
    with ExitStack() as stack:
        outputs = stack.enter_context(opened_outputs(settings))
        judging, asking = stack.enter_context(_judging(settings, engine, probes, policy)) if live else (None, None)
        worker = Worker(
            source, scorer, engine, policy, mitigator=mitigator, outputs=outputs, asking=asking, on_batch=on_batch
        )
        if judging is not None:
            stack.enter_context(judging.running(lambda: worker.stopping))
        yield worker


@contextmanager
def _judging(
    settings: Settings, engine: Engine, probes: list[Probe], policy: Policy
) -> Iterator[tuple[Judging, Asking] | tuple[None, None]]:
    """The judge that is set, and what the worker asks it through."""
    from monitor.judge.wiring import judge_of, judging_of
    from monitor.service.asking import Asking

    judge = judge_of(settings)
    if judge is None:
        yield None, None
        return
    with judging_of(settings, engine, judge, probes, policy.rules) as judging:
        yield (
            judging,
            Asking(
                judging,
                shadow=policy.shadow,
                reads_responses={probe.name for probe in probes if probe.aggregation.span == "response"},
                max_characters=settings.judge_max_characters,
                mask_secrets=settings.judge_mask_secrets,
            ),
        )


def batch_messages(settings: Settings, chat: ChatModel | None) -> int:
    """Messages a transaction, by the model's device where it is not set."""
    return settings.batch_messages or (64 if chat is not None and chat.device.type == "cpu" else 512)


def policy_of(settings: Settings, probes: list[Probe], chat: ChatModel | None) -> Policy:
    """The worker's policy by the settings."""
    from monitor.service.policy import Policy
    from monitor.service.sampling import Sampling
    from monitor.stream.wiring import parse_options

    return Policy(
        probe_names=tuple(p.name for p in probes),
        model=model_label(settings),
        destinations=settings.routing,
        shadow=frozenset(settings.shadow),
        rules=load_rules(settings).threshold,
        privacy=settings.privacy,
        mitigate=settings.mitigate,
        batch_messages=batch_messages(settings, chat),
        dead_letter_limit=settings.dead_letter_limit,
        parsing=parse_options(settings),
        attribute_keys=settings.attribute_keys,
        sampling=Sampling(
            settings.sample_after_seconds, settings.sample_share, always=frozenset(settings.priority_tenants)
        ),
        scored_by=tuple(_scored_by(probe, settings) for probe in probes),
        readings_grace_seconds=settings.readings_grace_seconds if settings.readings else None,
    )


def _scored_by(probe: Probe, settings: Settings) -> ScoredBy:
    """Live, a score from before digests counts as the probe's own, so that no alert counts it again; in shadow, and so
    in a replay, it is scored again."""
    from storage.known import ScoredBy

    live = probe.name not in settings.shadow
    return ScoredBy(probe.name, probe.digest, probe.card.version if live else None)


def load_rules(settings: Settings) -> Rules:
    """The rules of the file that is set, else the built-in ones with the settings' bands."""
    from alerts.rules.builtin import built_in
    from alerts.rules.file import load_rules as load

    if settings.rules_file is None:
        return built_in(settings.error_from, settings.critical_from)
    return load(settings.rules_file)


def model_label(settings: Settings) -> str:
    """The model's label in alerts: its name, and its adapter's."""
    name = Path(settings.model).name if "/" in settings.model else settings.model
    return f"{name}+{Path(settings.adapter).name}" if settings.adapter else name
