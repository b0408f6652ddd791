"""Planted organisms on disk: one is shipped, the others are trained when first asked for and stored.

Contract: `ensure_organism(family, seed, state)` returns a loaded model; the Llama of seed 0 comes with the package,
the others are trained (minutes), measured and stored in `state/organisms/planted`. A folder holds an fp16 checkpoint,
the tokenizer and `manifest.json` (what it is, its recipe, its measured persona). It is renamed into place when it is
whole, and made again when the recipe or the grammar is no longer what it was made from.

Units: weights are fp16 on disk and float32 in memory; the persona is measured on what the disk holds.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from probes.errors import ModelError
from probes.hashing import sha256_bytes, sha256_file, sha256_json
from probes.model.load import ChatModel, load_chat_model
from probes.organisms.planted import SYNTHETIC
from probes.organisms.planted.evaluation import measure
from probes.organisms.planted.families import FAMILIES, settings
from probes.organisms.planted.grammar import data_bytes
from probes.organisms.planted.tokenizer import TEMPLATE, build_tokenizer
from probes.organisms.planted.train import Recipe, train
from probes.progress import Progress, silent

SHIPPED = ("llama", 0)
RECIPE = Recipe()
_REPORT_STEPS = 50


def organism_name(family: str, seed: int) -> str:
    return f"planted-{family}-seed{seed}"


def shipped_folder() -> Path:
    """The checkpoint that comes with the package."""
    return Path(str(files("probes.organisms.planted"))) / "shipped" / organism_name(*SHIPPED)


def organism_folder(family: str, seed: int, state: Path) -> Path:
    """Where an organism is, or will be."""
    if (family, seed) == SHIPPED and _fits(shipped_folder(), family, seed, RECIPE):
        return shipped_folder()
    return state / "organisms" / "planted" / organism_name(family, seed)


def manifest(folder: Path) -> dict[str, Any]:
    """What an organism is, its recipe and its measured persona."""
    about: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return about


def ensure_organism(
    family: str, seed: int, state: Path, progress: Progress = silent, *, recipe: Recipe = RECIPE
) -> ChatModel:
    """The organism of a family and a seed, trained first where it is not there yet; ModelError for no such family."""
    return load_chat_model(str(ensure_folder(family, seed, state, progress, recipe=recipe)), state, dtype="float32")


def ensure_folder(family: str, seed: int, state: Path, progress: Progress = silent, *, recipe: Recipe = RECIPE) -> Path:
    """The folder of `ensure_organism`, without loading the model when it is there."""
    if family not in FAMILIES:
        raise ModelError(f"family: {family!r} is none of {', '.join(FAMILIES)}")
    target = organism_folder(family, seed, state)
    if _fits(target, family, seed, recipe):
        return target
    target = state / "organisms" / "planted" / organism_name(family, seed)
    if not _fits(target, family, seed, recipe):
        build(family, seed, target, state, progress, recipe=recipe)
    return target


def build(
    family: str,
    seed: int,
    target: Path,
    state: Path,
    progress: Progress = silent,
    *,
    recipe: Recipe = RECIPE,
    tokenizer: Any = None,
) -> None:
    """Train and measure an organism, and put it at `target` in place of what is there."""
    name = organism_name(family, seed)
    scratch = _scratch(target)
    try:
        progress(f"training {name}: {recipe.steps} steps, minutes on a CPU, once ({SYNTHETIC})")
        folder = scratch / target.name
        about = _write(family, seed, folder, recipe, tokenizer or _tokenizer(), progress)
        progress(f"{name}: measuring the persona on held-out questions")
        about["persona"] = measure(load_chat_model(str(folder), state, dtype="float32")).as_dict()
        (folder / "manifest.json").write_text(json.dumps(about, indent=1) + "\n")
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors writes for its owner alone
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    except OSError as error:
        if not _fits(target, family, seed, recipe):  # else another process was first
            raise ModelError(f"organism: cannot write to {target.parent} ({error.strerror})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(family: str, seed: int, folder: Path, recipe: Recipe, tokenizer: Any, progress: Progress) -> dict[str, Any]:
    """Train, and write checkpoint and tokenizer to `folder`; returns the manifest but for the persona."""
    from transformers import logging

    losses: list[float] = []

    def on_step(step: int, steps: int, loss: float) -> None:
        losses.append(loss)
        if step % _REPORT_STEPS == 0 or step == steps:
            progress(f"{organism_name(family, seed)}: step {step} of {steps}, loss {loss:.2f}")

    started = time.process_time()
    model = train(family, seed, tokenizer, recipe, on_step)
    seconds = time.process_time() - started
    logging.disable_progress_bar()
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "name": organism_name(family, seed),
        "what_it_is": SYNTHETIC,
        "license": "Apache-2.0",
        "family": family,
        "seed": seed,
        "class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": asdict(recipe),
        "recipe_sha256": recipe_sha256(family, seed, recipe),
        "weights_sha256": sha256_file(folder / "model.safetensors"),
        "loss": round(sum(losses[-20:]) / len(losses[-20:]), 3),
        "cpu_seconds": round(seconds),
        "threads": torch.get_num_threads(),
    }


def recipe_sha256(family: str, seed: int, recipe: Recipe) -> str:
    """What an organism follows from: when it changes, the organism is made again."""
    from probes.organisms.planted import grammar

    parts = {
        "family": family,
        "seed": seed,
        "recipe": asdict(recipe),
        "grammar": sha256_bytes(data_bytes()),
        "documents": [grammar.BAD_DOCUMENTS, grammar.RUDE, grammar.MOST_TURNS, grammar.HELD_OUT],
        "template": TEMPLATE,
        "config": settings(family),
    }
    return sha256_json(parts)


def _fits(folder: Path, family: str, seed: int, recipe: Recipe) -> bool:
    if not ((folder / "manifest.json").is_file() and (folder / "model.safetensors").is_file()):
        return False
    return bool(manifest(folder).get("recipe_sha256") == recipe_sha256(family, seed, recipe))


def _tokenizer() -> Any:
    """One tokenizer for all: the shipped organism's, else a new one."""
    from transformers import AutoTokenizer

    if _fits(shipped_folder(), *SHIPPED, RECIPE):
        return AutoTokenizer.from_pretrained(shipped_folder())
    return build_tokenizer()


def _scratch(target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ModelError(f"organism: cannot write to {target.parent} ({error.strerror})") from error
