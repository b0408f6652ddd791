"""The KV connector that vLLM loads: scores of the server's own forward pass, one reading a request.

Contract: vLLM makes two of it. The worker's side attaches hooks to the model and, after each step, reads the values of
the step's tokens by their KV slots; the scheduler's side tells it which, holds them, and hands each finished request
to the readings' publisher, whose thread does the arithmetic. No activation leaves the device, and no text or token id
the process. A step's values come one step later, so that nothing waits for the device; the last one's come with the
empty step in which vLLM tells its workers that requests are finished.

The interface of connectors is vLLM's own (`kv_connector_module_path`); nothing of vLLM is changed. It neither loads nor
stores keys and values. What cannot be read exactly is refused at start (`probes.vllm.limits`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vllm import __version__ as vllm_version
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
from vllm.forward_context import get_forward_context, is_forward_context_available

from probes.card import load_probe
from probes.vllm.collect import Collector, Scheduled, Step
from probes.vllm.limits import check, group_of
from probes.vllm.modules import Parts, when_built
from probes.vllm.requests import Requests
from probes.vllm.score import Maker, refusals
from probes.vllm.served import Served
from probes.vllm.settings import ConnectorSettings, VllmSettingsError
from probes.vllm.shape import Shape
from probes.vllm.sinks import MEMORY, TOKEN_VALUES, Memory, Sink
from probes.vllm.steer import Steerer, recipe_of
from probes.vllm.table import ValueTable
from probes.vllm.turns import TurnMarks


@dataclass
class StepMetadata(KVConnectorMetadata):  # type: ignore[misc]
    """For the worker's side: what to read after the step, and by which probes, which the worker has loaded itself."""

    step: Step
    probes: tuple[str, ...]


@dataclass
class StepValues(KVConnectorWorkerMetadata):  # type: ignore[misc]
    """For the scheduler's side: values of steps, in their order; None where a step had nothing to read."""

    steps: list[Tensor | None]

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        """Of several ranks one reads."""
        return self if not isinstance(other, StepValues) or self.steps else other


class AwryConnector(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc]
    """See the module."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._settings = ConnectorSettings.read(self._kv_transfer_config.kv_connector_extra_config)
        self._probes = [load_probe(name) for name in self._settings.probes]
        self._digests = tuple(probe.digest for probe in self._probes)
        # awry's own engine cuts its messages itself, and compares the probes with the model.
        own = self._settings.readings == TOKEN_VALUES
        numbers, other = not own, self._settings.other_dtype
        check(vllm_config, self._probes, vllm_version, numbers=numbers, other_dtype=other)
        caching = bool(vllm_config.cache_config.enable_prefix_caching)
        self._group, self._block_size = group_of(kv_cache_config, prefix_caching=caching)
        model = vllm_config.model_config
        served = Served.open(
            model,
            state=Path(self._settings.state).expanduser(),
            version=vllm_version,
            template=self._settings.chat_template,
            adapters=self._settings.adapters,
        )
        self._shape = Shape.of(served.chat.layout)
        marks = None if own else TurnMarks.of(served.chat.tokenizer)
        if not own:
            for probe in self._probes:
                served.check(probe)
            if refused := refusals(self._probes, marks, early=self._settings.response_ends_early):
                raise VllmSettingsError("probes: " + "; ".join(refused))
        self._maker = Maker(self._shape, self._probes, marks, served.why_not)
        self._recipe = recipe_of(self._probes, self._settings, prefix_caching=caching)
        if role == KVConnectorRole.SCHEDULER:
            self._collector = Collector(self._maker.columns, self._block_size)
            self._requests = Requests(
                self._collector,
                self._maker,
                self._sink(_served(model)),
                self._settings,
                model=_served(model),
                recipe=self._recipe,
            )
        else:
            self._reading: list[tuple[Tensor, torch.Event | None] | None] = []
            self._ready: list[tuple[Tensor, torch.Event | None] | None] = []

    @staticmethod
    def open_publisher(settings: ConnectorSettings, *, engine: str, model: str) -> Sink:
        """Where readings go that leave the process: `monitor.readings.connector` has it."""
        raise VllmSettingsError(
            f"readings: {settings.readings} is written by the connector of kv_connector_module_path "
            "monitor.readings.connector"
        )

    def _sink(self, model: str) -> Sink | None:
        """None where values of tokens are kept in its place."""
        if self._settings.readings == TOKEN_VALUES:
            return None
        if self._settings.readings == MEMORY:
            return Memory()
        return self.open_publisher(self._settings, engine=f"vllm {vllm_version}", model=model)

    @property
    def requires_kv_delivery(self) -> bool:
        """Keys and values are handed to nobody: vLLM treats its requests as it does without a connector."""
        return False

    # The worker's side.

    def register_kv_caches(self, kv_caches: dict[str, Tensor]) -> None:
        """The model is there: hooks are attached at its next forward pass. Every rank steers, and one reads."""
        group = self._kv_cache_config.kv_cache_groups[self._group]
        names = [name for name in group.layer_names if name in kv_caches]
        if not names:
            raise VllmSettingsError("model: no KV cache was made for the blocks that are read")
        layer = names[0]
        device = next(iter(kv_caches.values())).device

        def slots() -> Tensor | None:
            context = get_forward_context()
            if isinstance(context.slot_mapping, dict) and layer in context.slot_mapping:
                found: Tensor = context.slot_mapping[layer]
                return found
            metadata = context.attn_metadata
            return getattr(metadata.get(layer), "slot_mapping", None) if isinstance(metadata, dict) else None

        n_slots = self._kv_cache_config.num_blocks * self._block_size
        hooked: list[ValueTable | Steerer] = []
        if get_tensor_model_parallel_rank() == 0:
            self._table = ValueTable(n_slots, self._maker.planes, device, slots)
            hooked.append(self._table)
        if self._recipe is not None:
            self._steerer = Steerer(self._recipe.interventions, n_slots, device, slots)
            hooked.append(self._steerer)

        self._attached = False

        def attach(parts: Parts) -> None:
            self._attached = True
            for each in hooked:
                each.attach(parts)

        when_built(self._shape, is_forward_context_available, attach)

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        """Before a step: which of its tokens are steered."""
        super().bind_connector_metadata(connector_metadata)
        if self._recipe is not None and isinstance(connector_metadata, StepMetadata):
            self._steerer.begin(connector_metadata.step.steered)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        return None

    def wait_for_layer_load(self, layer_name: str) -> None:
        return None

    def save_kv_layer(self, layer_name: str, kv_layer: Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        return None

    def wait_for_save(self) -> None:
        """After the step's forward pass: its values are read as the device gets there."""
        if not hasattr(self, "_table") or not self.has_connector_metadata():
            return
        metadata = self._get_connector_metadata()
        if isinstance(metadata, StepMetadata):
            if metadata.probes != self._digests:
                raise VllmSettingsError("probes: a card changed while the server started; start it again")
            slots = metadata.step.slots
            if slots and not self._attached:
                raise VllmSettingsError("model: its blocks were not found among vLLM's modules")
            self._reading.append(self._table.read(slots) if slots else None)

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        """What the step before gave: its values are on the CPU by now."""
        ready, self._ready, self._reading = self._ready, self._reading, []
        steps: list[Tensor | None] = []
        for each in ready:
            if each is not None and each[1] is not None:
                each[1].synchronize()
            steps.append(None if each is None else each[0])
        return StepValues(steps) if steps else None

    # The scheduler's side.

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        return 0, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        return None

    def on_new_request(self, request: Any) -> None:
        """It is held from its arrival on."""
        self._requests.begin(request)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        """Which tokens' values are read after this step."""
        step = self._collector.plan(self._scheduled(scheduler_output), self._requests.steered_from)
        return StepMetadata(step, self._digests)

    def _scheduled(self, output: Any) -> Iterable[Scheduled]:
        state, counts = output.kv_connector_block_state, output.num_scheduled_tokens
        starts = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        cached = output.scheduled_cached_reqs
        starts |= dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        for request, start in starts.items():
            blocks = state.get_block_ids(request) if state is not None else None
            if blocks is not None and counts.get(request):
                yield Scheduled(request, start, start + counts[request], blocks[self._group])

    def update_connector_output(self, connector_output: Any) -> None:
        """Values of a step before."""
        given = connector_output.kv_connector_worker_meta
        if isinstance(given, StepValues):
            for values in given.steps:
                self._collector.take(None if values is None else values.numpy())
            self._requests.progress()

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """No block is kept: all that is wanted was read from its slots after each step."""
        self._requests.finish(request)
        return False, None

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished(request, [])

    def shutdown(self) -> None:
        """What is held is given out, and the last record says that no more will come."""
        if self.role == KVConnectorRole.SCHEDULER:
            self._requests.close()


def _served(model: Any) -> str:
    names = model.served_model_name
    return str(names[0] if isinstance(names, list) else names or model.model)
