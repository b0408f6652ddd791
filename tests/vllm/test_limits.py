"""What the connector refuses at start, by vLLM's own configs: a clear error, never a wrong score."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.engine.arg_utils import EngineArgs

from probes.card import Probe, load_probe, save_probe
from probes.errors import ProbeMismatchError
from probes.model.load import load_chat_model
from probes.vllm.limits import check
from probes.vllm.served import Served
from probes.vllm.settings import ConnectorSettings, VllmSettingsError
from tests.vllm.models import probe, saved
from tests.vllm.running import run

VERSION = "0.32.0"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def probes(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Probe]:
    folder = tmp_path_factory.mktemp("cards")
    chat = load_chat_model(str(model), folder, dtype="float32", device="cpu")
    of = {"residual": ["residual[1]"], "heads": ["head[0,1]"]}
    return {name: load_probe(str(save_probe(probe(chat, name, "last_prompt", s), folder))) for name, s in of.items()}


def config_of(model: Path, **options: Any) -> Any:
    given = {"dtype": "float32", "max_model_len": 512, "enforce_eager": True, **options}
    return EngineArgs(model=str(model), **given).create_engine_config()


def test_what_is_tested_is_taken(model: Path, probes: dict[str, Probe]) -> None:
    check(config_of(model), list(probes.values()), VERSION)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"enforce_eager": False}, "enforce_eager"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "speculative_config"),
    ],
)
def test_ways_to_run_a_server(model: Path, probes: dict[str, Probe], options: dict[str, Any], named: str) -> None:
    with pytest.raises(VllmSettingsError, match=named):
        check(config_of(model, **options), [probes["residual"]], VERSION)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("parallel_config.pipeline_parallel_size", 2, "pipeline_parallel_size"),
        ("parallel_config.tensor_parallel_size", 2, "tensor_parallel_size.*heads"),
        ("parallel_config.decode_context_parallel_size", 2, "context parallelism"),
        ("cache_config.cache_dtype", "fp8", "kv_cache_dtype: fp8"),
        ("cache_config.kv_sharing_fast_prefill", True, "kv_sharing_fast_prefill"),
        ("model_config.quantization", "fp8", "quantization: fp8"),
        ("model_config.hf_overrides", {"rope_theta": 1.0}, "hf_overrides"),
        ("model_config.tokenizer", "another", "tokenizer"),
        ("load_config.load_format", "dummy", "load_format"),
    ],
)
def test_what_this_machine_cannot_start(
    model: Path, probes: dict[str, Probe], path: str, value: Any, named: str
) -> None:
    """Several devices, and KV caches that a CPU has not got: vLLM's own config, with one value changed."""
    config = config_of(model)
    part, field = path.split(".")
    object.__setattr__(getattr(config, part), field, value)
    with pytest.raises(VllmSettingsError, match=named):
        check(config, list(probes.values()), VERSION)


def test_another_dtype_than_the_probes(model: Path, probes: dict[str, Probe]) -> None:
    config = config_of(model, dtype="bfloat16")
    with pytest.raises(VllmSettingsError, match=r"dtype: bfloat16.*made in float32"):
        check(config, [probes["residual"]], VERSION)
    check(config, [probes["residual"]], VERSION, other_dtype=True)


def test_residual_sites_take_tensor_parallelism(model: Path, probes: dict[str, Probe]) -> None:
    config = config_of(model)
    object.__setattr__(config.parallel_config, "tensor_parallel_size", 2)
    check(config, [probes["residual"]], VERSION)


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "1.0.0", "0.3.2"])
def test_versions_that_were_not_run(model: Path, probes: dict[str, Probe], version: str) -> None:
    with pytest.raises(VllmSettingsError, match=rf"vllm {version}.*deploy/vllm"):
        check(config_of(model), [probes["residual"]], version)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"probes": [], "readings": "x"}, "probes"),
        ({"readings": "x"}, "probes"),
        ({"probes": ["p"]}, "readings"),
        ({"probes": ["p"], "readings": "x", "partial_every": -1}, "partial_every"),
        ({"probes": ["p"], "readings": "x", "nonsense": 1}, "nonsense"),
        ({"probes": ["p"], "readings": "x", "steer": "sometimes"}, "steer"),
    ],
)
def test_settings_name_the_field(given: dict[str, Any], named: str) -> None:
    with pytest.raises(VllmSettingsError, match=f"kv_connector_extra_config: {named}"):
        ConnectorSettings.read(given)


def served(model: Path, state: Path) -> Served:
    config = config_of(model).model_config
    return Served.open(config, state=state, version=VERSION, template=None, adapters={})


@pytest.mark.parametrize("field", ["revision", "tokenizer_sha256", "template_sha256"])
def test_a_probe_of_another_model(model: Path, probes: dict[str, Probe], tmp_path: Path, field: str) -> None:
    here = served(model, tmp_path)
    here.check(probes["residual"])
    path = save_probe(probes["residual"], tmp_path / "cards")
    card = json.loads(path.read_text())
    card["identity"][field] = "0" * 16
    path.write_text(json.dumps(card))
    with pytest.raises(ProbeMismatchError, match=field):
        here.check(load_probe(str(path)))


def test_a_probe_reads_requests_of_its_own_adapter_alone(model: Path, probes: dict[str, Probe], tmp_path: Path) -> None:
    here = served(model, tmp_path)
    lora = SimpleNamespace(lora_name="other", lora_path=str(tmp_path))
    assert here.why_not(probes["residual"], None) is None
    assert here.why_not(probes["residual"], lora) == "it was made without an adapter, and the request runs with one"


def test_the_engine_does_not_start_and_says_why(model: Path, tmp_path: Path) -> None:
    """The whole way, from vLLM's options to its error."""
    connector = {"probes": ["harmful-request"]}
    found = run(tmp_path, {"model": str(model), "connector": connector, "options": {}, "rounds": []})
    assert "probe harmful-request" in found["refused"]
