"""Values of token sequences under a projection, no token read twice where that can be helped.

Contract: `read(sequences)` gives the values (tokens, columns) of each sequence, in portions whose values fit into
memory together. Equal sequences are read once, and one that another begins with is read within it. With `max_bytes`,
what sequences have in common is read once and kept: the beginnings that came twice, and whole conversations that went
on once, least recently used ones giving way. What is kept under one `condition` (adapter and scale) is never used under
another. What a message gives does not depend on what is kept beyond rounding.

Only for causal decoders whose cache is keys and values of every token; `probes.reuse.check` finds out.

Units: tokens, bytes. `tokens_read` are those of all sequences so far, `tokens_run` those that went through the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probes.capture.grouping import FIXED_TOKENS, by_cost
from probes.model.kv_cache import with_cache
from probes.projection import Projection
from probes.reuse.kept import Kept, kept_of
from probes.reuse.prefix import before, collected, prefix_cache
from probes.reuse.tree import BLOCK, Node, TokenTree, packed

# A beginning that is shorter is not worth keeping.
_LEAST = 2 * BLOCK
# Values of one portion: 32 million numbers, 128 MiB.
_MOST_VALUES = 32 * 1024 * 1024
# Tokens of one pass together with what stands before them, as a multiple of the budget.
_BEFORE = 4


@dataclass(frozen=True)
class Reuse:
    """What of the ways to read no token twice may be used: `within` another sequence, kept `prefixes`; and whether a
    pass needs `masks` where rows are padded on the right alone."""

    within: bool = True
    prefixes: bool = True
    masks: bool = True


@dataclass
class _Job:
    """A sequence to be read: what is kept of its beginning, and the nodes to keep of what follows."""

    key: bytes
    ids: tuple[int, ...]
    chain: tuple[Kept, ...]
    keep: list[Node[Kept]]

    @property
    def start(self) -> int:
        return sum(kept.tokens for kept in self.chain)


class SequenceReader:
    """See the module. `max_bytes` bounds what is kept; 0 keeps nothing."""

    def __init__(
        self,
        projection: Projection,
        *,
        max_bytes: int = 0,
        token_budget: int = 2048,
        fixed_tokens: int = FIXED_TOKENS,
        reuse: Reuse | None = None,
        condition: Callable[[], Hashable] = lambda: None,
    ) -> None:
        self._projection = projection
        self._condition = condition
        self._kept_under: Hashable = condition()
        self._tree: TokenTree[Kept] = TokenTree()
        self._positions = "position_ids" in inspect.signature(projection.layout.decoder.forward).parameters
        self._full = False
        self.max_bytes = max_bytes
        self.token_budget = token_budget
        self.fixed_tokens = fixed_tokens
        self.reuse = reuse or Reuse()
        # Called before each forward pass; what it raises ends `read`.
        self.before_pass: Callable[[], None] = lambda: None
        self.tokens_read = 0
        self.tokens_run = 0

    @property
    def kept_bytes(self) -> int:
        return self._tree.held_bytes

    def shrink(self) -> None:
        """Let go of what is kept, and keep half as much from now on: memory ran out."""
        self.max_bytes //= 2
        self._tree = TokenTree()

    @torch.inference_mode()
    def read(self, sequences: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Portions: the indices of some sequences, and their values in the same order."""
        keys = [packed(ids) for ids in sequences]
        by_key: dict[bytes, list[int]] = {}
        for i, key in enumerate(keys):
            by_key.setdefault(key, []).append(i)
        # In this order a sequence stands right before those that go on from it.
        portion: list[bytes] = []
        owners: dict[bytes, list[bytes]] = {}
        numbers = 0
        ordered = sorted(by_key)
        for place, key in enumerate(ordered):
            owners.setdefault(key, []).append(key)
            following = ordered[place + 1] if place + 1 < len(ordered) else b""
            if self.reuse.within and following.startswith(key):
                owners.setdefault(following, []).extend(owners.pop(key))
                continue
            numbers += len(sequences[by_key[key][0]]) * len(self._projection.order)
            if portion and numbers > _MOST_VALUES:
                yield self._portion(portion, owners, by_key, sequences)
                portion, numbers = [], len(sequences[by_key[key][0]]) * len(self._projection.order)
            portion.append(key)
        if portion:
            yield self._portion(portion, owners, by_key, sequences)

    def _portion(
        self,
        keys: list[bytes],
        owners: dict[bytes, list[bytes]],
        by_key: dict[bytes, list[int]],
        sequences: Sequence[Sequence[int]],
    ) -> tuple[list[int], list[Tensor]]:
        found = self._values({key: tuple(sequences[by_key[key][0]]) for key in keys})
        chosen, values = [], []
        for key in keys:
            for own in owners[key]:
                for i in by_key[own]:
                    chosen.append(i)
                    values.append(found[key][: len(sequences[i])])
                    self.tokens_read += len(sequences[i])
        return chosen, values

    def _values(self, sequences: dict[bytes, tuple[int, ...]]) -> dict[bytes, Tensor]:
        made: dict[bytes, Tensor] = {}
        if not (self.reuse.prefixes and self.max_bytes):
            self._run([_Job(key, ids, (), []) for key, ids in sequences.items()], made, 0)
            return made
        condition = self._condition()
        if condition != self._kept_under:
            self._kept_under, self._tree = condition, TokenTree()
        since, self._full = self._tree.clock, False
        going_on = {key for key in sequences if self._tree.add(key)}
        left = dict(sequences)
        while left:
            now = self._next([self._job(key, ids, key in going_on) for key, ids in left.items()])
            self._run(now, made, since)
            for job in now:
                del left[job.key]
        self._tree.forget_old()
        return made

    def _job(self, key: bytes, ids: tuple[int, ...], going_on: bool) -> _Job:
        path = self._tree.path(key)
        chain: list[Kept] = []
        for node in path:
            if node.held is None:
                break
            chain.append(node.held)
        keep = []
        for node in path[len(chain) :]:
            if not going_on and node.passed < 2:
                break
            keep.append(node)
        job = _Job(key, ids, tuple(chain), keep)
        if job.start + sum(node.tokens for node in keep) < _LEAST:
            job.keep = []
        return job

    def _next(self, jobs: list[_Job]) -> list[_Job]:
        """Those to be read now; the others wait for what these will keep, where that saves more than a pass costs."""
        claimed: set[Node[Kept]] = set()
        now, waiting, saved = [], [], 0
        for job in jobs:
            shared = sum(node.tokens for node in job.keep if node in claimed)
            if shared and not self._full:
                waiting.append(job)
                saved += shared
            else:
                claimed.update(job.keep)
                now.append(job)
        if saved > self.fixed_tokens:
            return now
        for job in waiting:
            job.keep = []
        return now + waiting

    def _run(self, jobs: Sequence[_Job], made: dict[bytes, Tensor], since: int) -> None:
        left = []
        for job in jobs:
            if job.start < len(job.ids):
                left.append(job)
            else:
                made[job.key] = torch.cat([kept.values for kept in job.chain])
        lengths = [len(job.ids) - job.start for job in left]
        for group in by_cost(lengths, budget=self.token_budget, fixed=self.fixed_tokens):
            for part in self._bounded([left[i] for i in group]):
                self.before_pass()
                self._forward(part, made, since)

    def _bounded(self, jobs: list[_Job]) -> list[list[_Job]]:
        """Halves of a group whose keys and values would be too many."""
        tokens = len(jobs) * (max(job.start for job in jobs) + max(len(job.ids) - job.start for job in jobs))
        if len(jobs) == 1 or tokens <= _BEFORE * self.token_budget or not any(job.chain for job in jobs):
            return [jobs]
        jobs = sorted(jobs, key=lambda job: job.start)
        half = len(jobs) // 2
        return self._bounded(jobs[:half]) + self._bounded(jobs[half:])

    def _forward(self, jobs: list[_Job], made: dict[bytes, Tensor], since: int) -> None:
        device = self._projection.device
        given = before([job.chain for job in jobs])
        suffixes = [job.ids[job.start :] for job in jobs]
        lengths = [len(ids) for ids in suffixes]
        width = max(lengths)
        rows = [list(ids) + [0] * (width - len(ids)) for ids in suffixes]
        ids = torch.tensor(rows, device=device)
        mask = torch.arange(width, device=device) < torch.tensor(lengths, device=device).unsqueeze(1)
        others: dict[str, Any] = {}
        keeping = any(job.keep for job in jobs)
        cache = prefix_cache(given, self._projection.layout.n_blocks) if given.width or keeping else None
        if cache is not None:
            others |= with_cache(self._projection.layout.decoder, cache)
        starts = torch.tensor(given.lengths, device=device).unsqueeze(1)
        if given.width and self._positions:
            # Where padding stands does not matter, as long as the model has the position.
            others["position_ids"] = ((starts + torch.arange(width, device=device)) * mask).contiguous()
        if given.padded or self.reuse.masks:
            there = torch.arange(given.width, device=device) >= given.width - starts
            values = self._projection(ids, torch.cat([there, mask], 1), **others)
        else:
            values = self._projection(ids, None, **others)
        self.tokens_run += sum(lengths)
        tensors = collected(cache) if keeping else []
        for row, job in enumerate(jobs):
            own = values[row, : lengths[row]]
            made[job.key] = torch.cat([*(kept.values for kept in job.chain), own]) if job.chain else own
            if job.keep:
                self._keep(job.keep, kept_of(tensors, row, sum(node.tokens for node in job.keep), own), since)

    def _keep(self, nodes: Sequence[Node[Kept]], kept: Kept, since: int) -> None:
        if not self._tree.make_room(kept.nbytes, self.max_bytes, since):
            self._full = True
            return
        if len(nodes) == 1:
            self._tree.hold(nodes[0], kept)
            return
        place = 0
        for node in nodes:
            self._tree.hold(node, kept.part(place, place + node.tokens))
            place += node.tokens
