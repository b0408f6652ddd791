"""Block replay: one prompt under many head ablations, each block run no more often than it must be.

What ablating head (l, h) leaves unchanged is computed once for all heads, exactly and not approximately:

- *shared depth*: what enters block l is the plain model's, so a head's row joins the batch at block l
- *one forward for many*: heads of several blocks and several prompts are rows of one growing batch
- *shared prefix*: tokens that all prompts begin with (a chat template's) depend on no later token, so under each
  ablation their keys and values are computed once, and a row holds only what comes after them
- *last position*: final norm and language-model head see the last prompt token alone

Contract: `Replay(chat, items, ablation)` compares, before its first piece, a replay without ablation with one plain
forward of `transformers` and refuses a model whose blocks cannot be replayed (LayoutError). `pieces(heads)` yields a
`Piece` for some heads and some prompts at a time, each pair once. `standing` heads are ablated in every row and in
what is shared (the greedy groups of Sahara). Inputs are the prompts' tokens; responses are not read.

Units: `token_budget` is tokens in one block's call; what is kept beside it grows with it and with the depth: the
entering residual stream of about twice as many tokens, and the prefix's keys and values under a chunk of heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probes.capture.batches import Batch, Encoded, batches
from probes.capture.sites import Site
from probes.errors import DataError, LayoutError
from probes.heads.ablation import Ablation, Switch, check_heads, switch
from probes.heads.recording import PrefixKeys, Recorded, observe_norms, record
from probes.model.kv_cache import keys_and_values, new_cache
from probes.model.load import ChatModel

# A shorter prefix is not worth a pass of its own.
_WORTH_SHARING = 4
# The largest KL (nats) between a replay without ablation and the plain model.
_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-9}
_TOLERANCE_LOW = 2e-2


@dataclass(frozen=True)
class Piece:
    """Some heads by some prompts: `heads` and `prompts` are indices of what was asked, all at the last prompt token.

    states (heads, prompts, width) and plain (prompts, width) are after the final norm; `norm_ratio` (heads, prompts)
    is the norm of the head's output, ablated over not ablated (of the input of the output projection). Pieces of one
    slab come one after the other, and no prompt is in two slabs.
    """

    heads: tuple[int, ...]
    prompts: tuple[int, ...]
    states: Tensor
    plain: Tensor
    norm_ratio: Tensor
    slab: int


class Replay:
    """Prompts, an ablation and the heads that stand ablated in all rows; see the module."""

    def __init__(
        self,
        chat: ChatModel,
        items: Sequence[Encoded],
        ablation: Ablation,
        *,
        standing: Sequence[Site] = (),
        token_budget: int = 2048,
    ) -> None:
        if not items:
            raise DataError("prompts: none given")
        check_heads(standing, chat.layout)
        self._chat, self._layout, self._ablation = chat, chat.layout, ablation
        self._standing = tuple(standing)
        self._budget = token_budget
        prompts = [x.ids[: x.n_prompt] for x in items]
        if not all(prompts):
            raise DataError("prompts: one has no tokens; render it with the chat template")
        # Keys and values of a prefix are all that attention keeps of it; a block with a state keeps more.
        hybrid = len(chat.layout.blocks_with_heads) < chat.layout.n_blocks
        shared = 0 if hybrid else _shared_length(prompts)
        self._prefix = torch.tensor([prompts[0][:shared]], dtype=torch.long, device=chat.device)
        self._own = [Encoded(x[shared:], len(x) - shared) for x in prompts]
        self._output: Any = None
        self._checked = False

    def pieces(self, heads: Sequence[Site]) -> Iterator[Piece]:
        """Every head by every prompt."""
        check_heads(heads, self._layout)
        if set(heads) & set(self._standing):
            raise DataError("heads: one that stands ablated already cannot be ablated again")
        order = sorted(range(len(heads)), key=lambda i: heads[i])
        for number, slab in enumerate(self._slabs()):
            with self._running() as on:
                prefix, recorded = self._record(slab)
                self._check(on, prefix, recorded[0])
            size = max(1, self._budget // max(map(self._cost, recorded)))
            for start in range(0, len(order), size):
                chunk = order[start : start + size]
                sites = [heads[i] for i in chunk]
                with self._running() as on:
                    keys = self._prefix_keys(on, prefix, sites)
                # No context is open while a piece is out: who breaks off leaves the model as it was.
                for plain in recorded:
                    with self._running() as on:
                        hidden, norms = self._run(on, plain, sites, keys)
                        states = self._layout.final_norm(hidden).view(len(sites), plain.rows, -1)
                    _check_finite(states, sites)
                    before = torch.stack([plain.norms[s.layer][:, s.head] for s in sites])
                    ratio = torch.stack(norms) / before.clamp(min=1e-12)
                    yield Piece(tuple(chunk), plain.prompts, states, plain.states, ratio, number)

    def plain_states(self) -> Tensor:
        """States (prompts, width) after the final norm at the last prompt token, with only `standing` ablated."""
        states = torch.zeros(len(self._own), self._layout.width, device=self._chat.device)
        for slab in self._slabs():
            with self._running():
                for recorded in self._record(slab)[1]:
                    states[list(recorded.prompts)] = recorded.states.float()
        return states

    def log_probs(self, states: Tensor) -> Tensor:
        """Log-probabilities of the next token, (rows, vocabulary), from states (rows, width) after the final norm.

        The model's own head is called with its decoder stood in for, so that soft-capping and scaling of logits hold.
        """
        decoder: Any = self._layout.decoder
        before = decoder.__dict__.get("forward")
        output = self._output
        decoder.forward = lambda *_, **__: output(last_hidden_state=states.unsqueeze(1))
        ids = torch.zeros(len(states), 1, dtype=torch.long, device=states.device)
        try:
            with torch.inference_mode():
                logits: Tensor = self._chat.model(input_ids=ids, use_cache=False).logits
        finally:
            if before is None:
                del decoder.forward
            else:
                decoder.forward = before
        return logits[:, -1].double().log_softmax(-1)

    def _slabs(self) -> Iterator[list[Batch]]:
        """Batches of prompts whose plain passes are kept together: about twice the budget in tokens."""
        # A row's prefix keys are copied while its block runs, so they count too.
        rows = max(1, self._budget // (self._prefix.shape[1] + max(len(x.ids) for x in self._own)))
        slab: list[Batch] = []
        for batch in batches(self._own, self._chat.device, token_budget=max(1, self._budget // 8), max_rows=rows):
            if slab and sum(x.ids.numel() for x in slab) + batch.ids.numel() > 2 * self._budget:
                yield slab
                slab = []
            slab.append(batch)
        yield slab

    def _cost(self, recorded: Recorded) -> int:
        """Tokens of the budget that one head takes over these prompts."""
        prefix = self._prefix.shape[1]
        return max(recorded.tokens, (recorded.tokens + recorded.rows * prefix) // 4, prefix)

    @contextmanager
    def _running(self) -> Iterator[Switch]:
        with torch.inference_mode(), switch(self._layout, self._ablation) as on:
            on.every_row(self._standing)
            yield on

    def _record(self, slab: Sequence[Batch]) -> tuple[Recorded | None, list[Recorded]]:
        """The plain passes: of the shared prefix, where there is one, and of each batch."""

        def recorded(batch: Batch, mask: Tensor, cache: Any = None) -> Recorded:
            last = batch.prompt.sum(1) - 1
            return record(self._chat, batch.ids, mask, last, prompts=batch.rows, cache=cache)

        width = self._prefix.shape[1]
        if not width:
            passes = [recorded(batch, batch.mask) for batch in slab]
            self._output = passes[0].output
            return None, passes
        cache = new_cache()
        last = torch.tensor([width - 1], device=self._prefix.device)
        prefix = record(self._chat, self._prefix, torch.ones_like(self._prefix, dtype=torch.bool), last, cache=cache)
        shared = keys_and_values(cache)
        passes = []
        for batch in slab:
            rows = len(batch.rows)
            following = new_cache()
            for layer, held in enumerate(shared):
                if held is not None:
                    following.update(*(x.expand(rows, -1, -1, -1) for x in held), layer)
            mask = torch.cat([batch.mask.new_ones(rows, width), batch.mask], 1)
            passes.append(recorded(batch, mask, following))
        self._output = prefix.output
        return prefix, passes

    def _prefix_keys(self, on: Switch, prefix: Recorded | None, sites: Sequence[Site | None]) -> PrefixKeys | None:
        if prefix is None:
            return None
        keys = PrefixKeys()
        self._run(on, prefix, sites, keys)
        return keys

    def _run(
        self, on: Switch, plain: Recorded, sites: Sequence[Site | None], keys: PrefixKeys | None
    ) -> tuple[Tensor, list[Tensor]]:
        """At the last token: states before the final norm (sites x prompts, width) and the norm of each ablated head.

        Sites are in order of their layer; None joins at the bottom and has nothing ablated, nor a norm.
        """
        layout, rows = self._layout, plain.rows
        hidden: Tensor | None = None
        joined = 0
        norms: list[Tensor] = []
        if keys is not None and plain.prompts:
            keys.repeats = rows
        for layer in range(layout.n_blocks):
            new = [s for s in sites if (s.layer if s else 0) == layer]
            if new:
                arriving = plain.entering[layer].repeat(len(new), 1, 1)
                hidden = arriving if hidden is None else torch.cat([hidden, arriving])
                joined += len(new)
            if hidden is None:
                continue
            self._set(on, layer, [None] * (joined - len(new)) + new, rows)
            seen: list[Tensor] = []
            handles = observe_norms(layout, layer, plain.last, seen.append) if any(new) else []
            try:
                hidden = plain.run_block(layout, layer, hidden, joined, keys)
            finally:
                for handle in handles:
                    handle.remove()
            if seen:
                fresh = seen[0][-len(new) * rows :].view(len(new), rows, -1)
                norms += [fresh[i, :, s.head] for i, s in enumerate(new) if s]
        assert hidden is not None  # noqa: S101 - heads were checked to lie in the model
        at = plain.last.repeat(joined)
        return hidden[torch.arange(len(at), device=at.device), at], norms

    def _set(self, on: Switch, layer: int, sites: Sequence[Site | None], rows: int) -> None:
        """Off in this block: what stands, and each row's own head where it is in this block."""
        standing = [s.head for s in self._standing if s.layer == layer]
        own = [s.head if s and s.layer == layer else -1 for s in sites]
        on.off.pop(layer, None)
        if not standing and max(own) < 0:
            return
        # -1 is a last column too many, which is cut off.
        off = torch.zeros(len(sites), self._layout.heads_at(layer).count + 1, dtype=torch.bool)
        off[torch.arange(len(own)), own] = True
        off[:, standing] = True
        on.off[layer] = off[:, :-1].repeat_interleave(rows, dim=0).to(self._chat.device)

    def _check(self, on: Switch, prefix: Recorded | None, plain: Recorded) -> None:
        """Two rows without a new ablation against the plain model, on the prompt with most padding; once."""
        if self._checked:
            return
        name = type(self._layout.blocks[0]).__name__
        nothing: list[Site | None] = [None, None]
        try:
            hidden, _ = self._run(on, plain, nothing, self._prefix_keys(on, prefix, nothing))
            states = self._layout.final_norm(hidden).view(2, plain.rows, -1)[:, 0]
            replayed = self.log_probs(states)
        except torch.OutOfMemoryError:
            raise
        except (TypeError, AttributeError, LookupError, RuntimeError) as error:
            raise LayoutError(f"{name}: its blocks cannot be run by themselves ({type(error).__name__})") from error
        on.every_row(self._standing)
        own = torch.tensor([self._own[plain.prompts[0]].ids], dtype=torch.long, device=self._chat.device)
        logits = self._chat.model(input_ids=torch.cat([self._prefix, own], 1), use_cache=False).logits[:, -1]
        true = logits.double().log_softmax(-1)
        kl = float((true.exp() * (true - replayed)).sum(-1).max())
        if not kl <= _TOLERANCE.get(self._chat.dtype, _TOLERANCE_LOW):
            raise LayoutError(
                f"{name}: a replay of its blocks differs from the model by KL {kl:.1e} nats; this family does more "
                "between its blocks than is known here"
            )
        self._checked = True


def _shared_length(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with, leaving each one of its own; 0 where that is not worth it."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    shared = min(shared, min(map(len, prompts)) - 1)
    return shared if shared >= _WORTH_SHARING else 0


def _check_finite(states: Tensor, sites: Sequence[Site]) -> None:
    finite = states.isfinite().all(-1).all(1)
    if not finite.all():
        worst = sites[int((~finite).nonzero()[0])]
        raise DataError(
            f"activations: not finite when {worst} is ablated (float16 overflow?); load the model in float32"
        )
