"""Small models that vLLM's CPU kernels take (heads of 32 and wider), and probes of every aggregation on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from probes.calibration import Calibration
from probes.capture.sites import parse_site, site_width
from probes.card import Card, DirectionCard, MitigationCard, Probe, save_probe
from probes.directions import Direction
from probes.evaluation import Interval
from probes.model.load import ChatModel
from tests.support.models.tiny import VOCAB, randomise, tiny_tokenizer

N_BLOCKS, N_HEADS, N_KV, HEAD, WIDTH = 3, 4, 2, 32, 96
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 128,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": N_HEADS,
    "num_key_value_heads": N_KV,
    "head_dim": HEAD,
    "max_position_embeddings": 1024,
    "pad_token_id": 256,
    "bos_token_id": None,
    "eos_token_id": 257,
    "tie_word_embeddings": False,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen3": ("Qwen3", {}),
    "gemma3": (
        "Gemma3",
        {
            "query_pre_attn_scalar": HEAD,
            "sliding_window": 32,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
}
AGGREGATIONS = (
    *("last_prompt", "mean(prompt)", "max_rolling_mean(4, prompt)", "top_mean(3, 4, prompt)", "ema_max(0.3, prompt)"),
    *("last_response", "mean(response)", "max_rolling_mean(3, response)", "top_mean(2, 2, response)"),
    *(
        "ema_max(0.5, response)",
        "top_mean(3, 4, turns)",
        "mean(user)",
        "max_rolling_mean(2, last_user)",
        "mean(system)",
    ),
)


def saved(folder: Path, family: str) -> Path:
    """A checkpoint with its tokenizer, random, in float32."""
    name, more = CONFIGS[family]
    config = getattr(transformers, "Gemma3TextConfig" if family == "gemma3" else f"{name}Config")(**_COMMON, **more)
    model = randomise(getattr(transformers, f"{name}ForCausalLM")(config), 3)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def probe(
    chat: ChatModel,
    name: str,
    aggregation: str,
    sites: Sequence[str],
    *,
    seed: int = 7,
    threshold: float = 0.0,
    recipe: MitigationCard | None = None,
) -> Probe:
    """Along random directions that give values of a few class gaps; with a recipe it steers along the first."""
    draw = np.random.default_rng(seed)
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
        calibration=Calibration(
            threshold, 0.01, Interval(0.0, 0.0, 0.1, 30), False, 30, "0" * 64, "none", "2026-03-01", ()
        ),
        evaluation={},
        references=[],
        tolerance=0.01,
        mitigation=recipe,
    )
    return Probe(card, directions, directions[:1] if recipe else ())


def cards(chat: ChatModel, folder: Path, *, heads: bool = True) -> list[Path]:
    """Cards of all aggregations at a block's output, and of other sites: the final norm, heads of two blocks."""
    made = [probe(chat, f"p{n}", each, ["residual[1]"], seed=n) for n, each in enumerate(AGGREGATIONS)]
    made += [
        probe(chat, "last-block", "mean(prompt)", [f"residual[{chat.layout.n_blocks - 1}]"], seed=30),
        probe(chat, "final", "mean(prompt)", ["final"], seed=31),
        probe(chat, "two-blocks", "top_mean(3, 4, prompt)", ["residual[0]", "residual[2]"], seed=32),
    ]
    if heads:
        made.append(
            probe(chat, "heads", "max_rolling_mean(3, prompt)", ["head[0,1]", "head[0,2]", "head[2,3]"], seed=33)
        )
    return [save_probe(each, folder) for each in made]
