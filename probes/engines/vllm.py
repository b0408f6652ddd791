"""vLLM in this process, as a second engine of `awry run`: a message is a prompt, and its tokens are read on the way.

Contract: that of `probes.engines.base`. awry renders and tokenises; vLLM gets token ids, turns and response in one
prompt, so that each of their tokens has its hidden state, and gives one token that nobody reads. The connector of
`probes.vllm` projects the activations where they are and hands over the values of each token, those of a cached prefix
included. Adapters act by vLLM's own LoRA support, at awry's scale (`lora_folder`).

`open_engine` loads it: everything that can be refused is refused before the weights are read. vLLM is imported there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from probes.capture.batches import Batch, Encoded, collate
from probes.capture.grouping import by_cost
from probes.capture.sites import Site
from probes.directions import Direction
from probes.engines.base import Engine, Plan, Session, plan_of
from probes.engines.vllm_args import check_args, installed_version, why_no_lora, why_no_model, why_not
from probes.errors import EngineError, EngineLostError
from probes.hashing import sha256_arrays, sha256_json
from probes.model import lora
from probes.model.adapters import AdapterSpec
from probes.model.unloaded import UnloadedChat
from probes.model.vocabulary import unknown_id
from probes.planes import planes
from probes.progress import Progress, silent
from probes.reuse.check import made_up
from probes.scoring import Arithmetic, Reader, Scores, directions_of

NAME = "vllm"
# Values that are held at once: 32 million numbers, 128 MiB.
_MOST_VALUES = 32 * 1024 * 1024
# Requests that are handed over together: vLLM has as many as it can in a step, and the rest wait in its queue.
_MOST_REQUESTS = 256
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class VllmOptions:
    """`args` are of the setting `vllm_args`, read; `max_tokens` bounds a message, and `state` is where scaled adapters
    are written."""

    state: Path
    args: Mapping[str, Any]
    max_tokens: int = 2048
    trust_remote_code: bool = False


def plan_for(chat: UnloadedChat, readers: Mapping[str, Reader], args: Mapping[str, Any]) -> Plan:
    """What a vLLM with these arguments would score: known before it is loaded."""
    check_args(args)
    no_model = why_no_model(chat.model.config, streams=chat.layout.stream is not None)
    return plan_of(chat.layout, readers, lambda reader: no_model or why_not(reader, args))


def open_engine(
    chat: UnloadedChat,
    cards: Mapping[str, Reader],
    options: VllmOptions,
    progress: Progress = silent,
) -> VllmEngine:
    """vLLM with the model of `chat`, reading for these probes: the readers by what `probes.card.load_probe` finds them
    by (a shipped name or the path of a card). EngineError for what cannot be."""
    found = installed_version()
    plan_for(chat, cards, options.args).check()
    spec = chat.adapters[chat.active] if chat.active else None
    folder = lora_folder(spec, options.state) if spec is not None else None
    _prepare_environment()
    from vllm import LLM

    from probes.vllm.offline import Capture

    capture = Capture(tuple(cards))
    given = llm_arguments(chat, options, folder) | capture.llm_options()
    progress(f"loading {chat.name} in vllm {found}")
    try:
        llm = LLM(**given)
    except Exception as error:  # of vLLM, torch or a driver, which raise what they like
        first = next(iter(str(error).splitlines()), "")[:300]
        raise EngineError(
            f"engine: vllm does not start ({type(error).__name__}: {first}); see its log above"
        ) from error
    engine = VllmEngine(chat, llm, capture, directions_of(list(cards.values())), found, options.args, folder)
    try:
        # The hooks find the model at its first pass; that must be vLLM's own, whatever else runs in this process later.
        engine.values([Encoded((0, 1, 2), 3)])
    except Exception as error:
        engine.close()
        first = next(iter(str(error).splitlines()), "")[:300]
        raise EngineError(f"engine: vllm cannot be read ({type(error).__name__}: {first})") from error
    return engine


def llm_arguments(chat: UnloadedChat, options: VllmOptions, folder: Path | None) -> dict[str, Any]:
    """What `vllm.LLM` is told, but for what the capture adds."""
    # A message, and the token that vLLM gives.
    longest = min(options.max_tokens, chat.max_positions or options.max_tokens) + 1
    given = {
        "model": chat.source,
        "dtype": str(chat.numbers).removeprefix("torch."),
        "max_model_len": longest,
        "enable_prefix_caching": True,
        "trust_remote_code": options.trust_remote_code,
        "generation_config": "vllm",
        **options.args,
        "enforce_eager": True,
    }
    if given["max_model_len"] is not None and given["max_model_len"] < longest:
        raise EngineError(
            f"vllm_args: max_model_len={given['max_model_len']} is shorter than max_tokens={longest - 1} and one more; "
            "set max_tokens lower, or leave it out"
        )
    if folder is not None:
        given |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(lora.read_config(folder))}
    return given


def lora_folder(spec: AdapterSpec, state: Path) -> Path:
    """The folder of a LoRA adapter as vLLM takes it; one that is to act at another scale than its own gets a copy whose
    alpha is as much larger."""
    config = lora.read_config(spec.folder)
    reason = why_no_lora(config)
    if reason is not None:
        raise EngineError(f"adapter: {spec.name} cannot act in vLLM: {reason}; use engine=transformers")
    if spec.scale == 1.0:
        return spec.folder
    if spec.scale == 0:
        raise EngineError("scale: vLLM has no adapter of strength 0; leave the adapter out")
    config["lora_alpha"] = config["lora_alpha"] * spec.scale
    patterns = config.get("alpha_pattern") or {}
    config["alpha_pattern"] = {name: alpha * spec.scale for name, alpha in patterns.items()}
    folder = state / "vllm-adapters" / sha256_json([spec.sha256, config])[:16]
    if not (folder / "adapter_config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(spec.folder / "adapter_model.safetensors", folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    return folder


def _rank(config: Mapping[str, Any]) -> int:
    rank = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    fitting = [each for each in _RANKS if each >= rank]
    if not fitting:
        raise EngineError(f"adapter: its rank {rank} is over vLLM's {_RANKS[-1]}; use engine=transformers")
    return fitting[0]


def _prepare_environment() -> None:
    """vLLM in this process, saying little and nothing on standard output, where verdicts may go; a variable that is set
    stays."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    }.items():
        os.environ.setdefault(name, value)


class VllmEngine(Engine):
    """See the module."""

    name = NAME

    def __init__(
        self,
        chat: UnloadedChat,
        llm: Any,
        capture: Any,
        directions: Sequence[Direction],
        found: str,
        args: Mapping[str, Any],
        folder: Path | None,
    ) -> None:
        super().__init__(chat)
        self._llm = llm
        self._capture = capture
        self._version = found
        self._args = dict(args)
        _, order = planes(chat.layout, directions)
        self._column = {_key(direction): column for direction, column in zip(directions, order, strict=True)}
        self._directions = tuple(directions)
        self._lora = None
        if folder is not None:
            from vllm.lora.request import LoRARequest

            self._lora = LoRARequest(str(chat.active), 1, str(folder))
        self._rows = chat.vocabulary
        self._unknown = unknown_id(chat.tokenizer, self._rows)

    @property
    def label(self) -> str:
        return f"{NAME} {self._version}"

    @property
    def conditions(self) -> str:
        return f"{self.label} {json.dumps(self._args, sort_keys=True)}"

    @property
    def columns(self) -> int:
        """Values of one token."""
        return len(self._directions)

    def plan(self, readers: Mapping[str, Reader]) -> Plan:
        return plan_of(self.chat.layout, readers, self._why_not)

    def _why_not(self, reader: Reader) -> str | None:
        if any(_key(direction) not in self._column for direction in reader.directions):
            return "vLLM was started without it: the probes that it reads for are given at its start"
        return why_not(reader, self._args)

    def session(self, readers: Sequence[Reader], *, token_budget: int = 2048, reuse_bytes: int = 0) -> Session:
        del reuse_bytes  # vLLM keeps prefixes by itself, within its KV cache
        self.plan({str(number): reader for number, reader in enumerate(readers)}).check()
        order = [self._column[_key(direction)] for direction in directions_of(readers)]
        return _Session(self, Arithmetic(readers, order), token_budget)

    def values(self, items: Sequence[Encoded]) -> list[Tensor]:
        """The values of each message's tokens, (tokens, columns), in float32 on the CPU."""
        prompts = [[i if i < self._rows else self._unknown for i in item.ids] for item in items]
        try:
            made = self._capture.collect(self._llm, prompts, lora_request=self._lora)
        except Exception as error:
            if _is_lost(error):
                raise EngineLostError("engine: vllm ended while it ran; see its log above") from error
            raise
        for item, values in zip(items, made, strict=True):
            if values.shape != (len(item.ids), self.columns) or bool(values.isnan().any()):
                raise EngineError("engine: vllm gave no values of some tokens")
        return list(made)

    def close(self) -> None:
        """Ends vLLM's processes, where it has some."""
        llm, self._llm = self._llm, None
        core = getattr(getattr(llm, "llm_engine", None), "engine_core", None)
        if core is not None:
            core.shutdown()


def _key(direction: Direction) -> tuple[Site, str]:
    """What makes a direction's values: a probe may be read from its files more than once."""
    return direction.site, sha256_arrays(direction.vector, direction.centre)


def _is_lost(error: Exception) -> bool:
    return type(error).__name__ in ("EngineDeadError", "EngineGenerateError")


class _Session(Session):
    def __init__(self, engine: VllmEngine, arithmetic: Arithmetic, token_budget: int) -> None:
        super().__init__(arithmetic.readers)
        self._engine = engine
        self._arithmetic = arithmetic
        self._budget = token_budget
        self._run = 0

    @property
    def tokens_run(self) -> int:
        return self._run

    def score(self, items: Sequence[Encoded], *, turns: bool = False) -> Iterator[tuple[Batch, Scores]]:
        equal: dict[tuple[int, ...], list[int]] = {}
        for place, item in enumerate(items):
            equal.setdefault(item.ids, []).append(place)
        for portion in self._portions(list(equal)):
            self.before_pass()
            found = self._engine.values([items[equal[ids][0]] for ids in portion])
            self._run += sum(map(len, portion))
            chosen = [(place, values) for ids, values in zip(portion, found, strict=True) for place in equal[ids]]
            for group in by_cost([len(values) for _, values in chosen], budget=self._budget):
                rows = [chosen[n][0] for n in group]
                batch = collate([items[place] for place in rows], torch.device("cpu"), rows)
                several = turns and any(len(items[place].turns) > 1 for place in rows)
                values = pad_sequence([chosen[n][1] for n in group], batch_first=True)
                yield batch, self._arithmetic(values, batch, turns=several)

    def _portions(self, sequences: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        """Messages whose values are held together."""
        portion: list[tuple[int, ...]] = []
        numbers = 0
        for ids in sequences:
            more = len(ids) * self._engine.columns
            if portion and (len(portion) == _MOST_REQUESTS or numbers + more > _MOST_VALUES):
                yield portion
                portion, numbers = [], 0
            portion.append(ids)
            numbers += more
        if portion:
            yield portion

    def try_out(self, tolerance: float) -> dict[str, Any]:
        """Sequences that begin alike, together and then alone, one after the other, from vLLM's cache: the same scores,
        else EngineError, since there is no way around the cache here."""
        items = made_up(self._engine.chat.vocabulary)
        together = self._totals(items)
        alone = torch.cat([self._totals([item]) for item in items])
        scale = max(1.0, float(together.abs().nan_to_num().max()))
        most = float((together - alone).abs().nan_to_num().max())
        if not bool((together.isnan() == alone.isnan()).all()) or not most <= tolerance * scale:
            raise EngineError(
                f"engine: {self._engine.label} gives scores that differ by {most:.2g} with what is cached; try "
                "--vllm-arg enable_prefix_caching=false, or engine=transformers"
            )
        return {"reasons": []}

    def _totals(self, items: Sequence[Encoded]) -> Tensor:
        made = torch.full((len(items), len(self.readers)), math.nan)
        for batch, scores in self.score(items):
            made[list(batch.rows)] = scores.total
        return made
