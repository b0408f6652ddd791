"""Memory of the worker's GPU, read at each scrape.

Contract: within `watching_gpu(device)` the metric `awry_gpu_memory_bytes` is on the registry; without CUDA it is not,
since its zero would be a measurement that was not made. `used` and `total` are of the whole device, all processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from monitor.telemetry.metrics import GPU_MEMORY_BYTES, REGISTRY, family


class GpuCollector(Collector):
    """`cuda` is `torch.cuda`, or a stand-in for it."""

    def __init__(self, cuda: Any, device: Any) -> None:
        self._cuda = cuda
        self._device = device

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [family(GPU_MEMORY_BYTES)]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        memory = family(GPU_MEMORY_BYTES)
        try:
            free, total = self._cuda.mem_get_info(self._device)
            reserved = self._cuda.memory_reserved(self._device)
            allocated = self._cuda.memory_allocated(self._device)
        except RuntimeError:  # a device that failed: the worker reports it
            return []
        values = {"allocated": allocated, "reserved": reserved, "used": total - free, "total": total}
        for kind in GPU_MEMORY_BYTES.labels["kind"]:
            memory.add_metric((kind,), values[kind])
        return [memory]


@contextmanager
def watching_gpu(device: Any) -> Iterator[None]:
    """`device` is a torch.device; nothing happens unless it is CUDA's."""
    if device.type != "cuda":
        yield
        return
    import torch

    collector = GpuCollector(torch.cuda, device)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
