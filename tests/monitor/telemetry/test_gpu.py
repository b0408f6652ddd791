"""The GPU's memory at each scrape; nothing where there is no GPU, or one that failed."""

from __future__ import annotations

import pytest
import torch
from prometheus_client import CollectorRegistry

from monitor.telemetry.gpu import GpuCollector, watching_gpu
from monitor.telemetry.metrics import GPU_MEMORY_BYTES, REGISTRY


class Cuda:
    """What the collector asks of torch.cuda."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    def mem_get_info(self, _device: object) -> tuple[int, int]:
        if self.broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return 30, 100

    def memory_reserved(self, _device: object) -> int:
        return 50

    def memory_allocated(self, _device: object) -> int:
        return 40


def test_it_tells_what_torch_and_all_programs_use() -> None:
    registry = CollectorRegistry()
    registry.register(GpuCollector(Cuda(), "cuda:0"))
    found = {
        k: registry.get_sample_value("awry_gpu_memory_bytes", {"kind": k}) for k in GPU_MEMORY_BYTES.labels["kind"]
    }
    assert found == {"allocated": 40, "reserved": 50, "used": 70, "total": 100}


def test_a_device_that_failed_does_not_fail_the_scrape() -> None:
    registry = CollectorRegistry()
    registry.register(GpuCollector(Cuda(broken=True), "cuda:0"))
    assert list(registry.collect()) == []


def test_without_a_gpu_there_is_nothing() -> None:
    with watching_gpu(torch.device("cpu")):
        assert "awry_gpu_memory_bytes" not in {f.name for f in REGISTRY.collect()}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu() -> None:
    device = torch.device("cuda")
    held = torch.zeros(1024, 1024, device=device)
    with watching_gpu(device):
        found = {k: REGISTRY.get_sample_value("awry_gpu_memory_bytes", {"kind": k}) for k in ("allocated", "total")}
    assert found["allocated"] is not None
    assert found["total"] is not None
    assert held.nbytes <= found["allocated"] <= found["total"]
    assert "awry_gpu_memory_bytes" not in {f.name for f in REGISTRY.collect()}
