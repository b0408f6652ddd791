"""The settings of what runs the model (`monitor.settings.Settings` has them)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class EngineSettings(BaseSettings):
    """Part of all settings."""

    engine: Literal["transformers", "vllm"] = Field(
        "transformers",
        description="what runs the model of awry run, replay and score-server: transformers, or vllm where it is "
        "installed beside awry (docs/vllm.md)",
    )
    vllm_args: tuple[str, ...] = Field(
        (),
        description="arguments of vllm.LLM for the engine vllm, each KEY=VALUE with a JSON value, such as "
        "tensor_parallel_size=2",
    )
