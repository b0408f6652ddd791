"""Head attribution: Ships for prompts and for data sets, and the greedy head groups of Sahara.

From "On the role of attention heads in large language model safety" (arXiv 2410.13708; `docs/science.md` C.1):

- `ships` (section 3.2): KL( p(.|q) || p(.|q, head ablated) ) in nats, over the whole vocabulary, at the last prompt
  position; no generation. (The authors add 1e-12 to both; here both are log-softmaxes in float64.)
- `compare` (ours): a head's mean Ships on harmful prompts less that on harmless ones, since KL is high for any head
  that breaks the text. With it go the change of the log-probability of given tokens (such as those that open a
  refusal) and the norm of the head's output, ablated over not: undifferentiated attention can raise it
- `dataset_angles`, dataset-level Ships (section 4.1): with M the prompts' last-position states after the final norm
  (prompts, width), the sum of the r principal angles, in degrees, between the spans of the first r left singular
  vectors of M with and without the ablation. The authors' code takes r = 1 and does not centre; then the first vector
  is mostly each prompt's norm
- `sahara` (section 4.2): groups grown by the head that raises dataset-level Ships most; the reference stays unablated

Contract: prompts are `Encoded` and are read up to their last prompt token; heads are sites `head[l,h]`, all by
default. Arrays are (prompts, layers, heads) or (layers, heads) in float64, NaN where a head was not asked for.
`probes.heads.block_replay` does the work: memory is bounded by `token_budget`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from probes.capture.batches import Encoded
from probes.capture.sites import Site, head_sites
from probes.directions import Floats
from probes.errors import DataError
from probes.heads.ablation import Ablation
from probes.heads.block_replay import Replay
from probes.model.load import ChatModel

# (head by prompt) pairs that are done, and how many there are.
OnPairs = Callable[[int, int], None]
# Rows of log-probabilities at a time: float64 over the vocabulary.
_ROWS = 64
# Of float32 states that should be the same, over their size.
_ROUNDING = 1e-6
# The most that is held of states of all heads by all prompts.
_STATE_BYTES = 1 << 29


@dataclass(frozen=True)
class Effects:
    """What ablating each head does at the last prompt position, (prompts, layers, heads).

    `kl` is Ships in nats; `watched` the change of the log-probability (nats) of the watched tokens together, NaN when
    none were given; `norm_ratio` the norm of the head's own output, ablated over not.
    """

    kl: Floats
    watched: Floats
    norm_ratio: Floats


@dataclass(frozen=True)
class HeadContrast:
    """Mean on harmful prompts less mean on harmless ones, (layers, heads), with 95 % bootstrap bounds."""

    value: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Sahara:
    """Heads in the order in which they were chosen; `angles[s]` (degrees) are those of step s, (layers, heads)."""

    heads: tuple[Site, ...]
    angles: tuple[Floats, ...]


def head_effects(
    chat: ChatModel,
    items: Sequence[Encoded],
    heads: Sequence[Site] | None = None,
    *,
    ablation: Ablation | None = None,
    watched: Sequence[int] = (),
    token_budget: int = 2048,
    on_pairs: OnPairs = lambda _done, _all: None,
) -> Effects:
    """Ablate each head (all by default) on each prompt; arrays (prompts, layers, heads), NaN for other heads.

    `kl` is Ships of arXiv 2410.13708 section 3.2, KL(plain || ablated) in nats (`docs/science.md` C.1 step 4). Raises
    SiteError for a head that is not there, DataError (nothing to read, not finite) and LayoutError.
    """
    heads = list(head_sites(chat.layout) if heads is None else heads)
    shape = (len(items), chat.layout.n_blocks, chat.layout.n_heads)
    kl, shift, ratio = (np.full(shape, np.nan) for _ in range(3))
    replay = Replay(chat, items, ablation or Ablation(), token_budget=token_budget)
    tokens = torch.tensor(list(watched), dtype=torch.long, device=chat.device)
    plain: dict[tuple[int, ...], Tensor] = {}
    slab, done = -1, 0
    for piece in replay.pieces(heads):
        if piece.slab != slab:
            plain.clear()
            slab = piece.slab
        if piece.prompts not in plain:
            plain[piece.prompts] = replay.log_probs(piece.plain)
        before = plain[piece.prompts]
        layers, columns = np.array([(heads[i].layer, heads[i].head) for i in piece.heads]).T
        rows = np.array(piece.prompts)[:, None]
        per = max(1, _ROWS // len(rows))
        for at in (slice(start, start + per) for start in range(0, len(piece.heads), per)):
            states = piece.states[at]
            after = replay.log_probs(states.flatten(0, 1)).view(len(states), *before.shape)
            # Rounding can leave a KL of nothing a little below nothing.
            kl[rows, layers[at], columns[at]] = _numbers((before.exp() * (before - after)).sum(-1).clamp(min=0))
            ratio[rows, layers[at], columns[at]] = _numbers(piece.norm_ratio[at])
            if len(tokens):
                change = after[..., tokens].logsumexp(-1) - before[:, tokens].logsumexp(-1)
                shift[rows, layers[at], columns[at]] = _numbers(change)
        done += piece.norm_ratio.numel()
        on_pairs(done, len(heads) * len(items))
    return Effects(kl, shift, ratio)


def _numbers(values: Tensor) -> Floats:
    """(heads, prompts) as an array (prompts, heads)."""
    array: Floats = values.T.double().cpu().numpy()
    return array


def ships(
    chat: ChatModel,
    items: Sequence[Encoded],
    heads: Sequence[Site] | None = None,
    *,
    ablation: Ablation | None = None,
    token_budget: int = 2048,
    on_pairs: OnPairs = lambda _done, _all: None,
) -> Floats:
    """Ships (arXiv 2410.13708 section 3.2) of each head for each prompt, in nats: (prompts, layers, heads).

    Raises as `head_effects` does.
    """
    return head_effects(chat, items, heads, ablation=ablation, token_budget=token_budget, on_pairs=on_pairs).kl


def first_tokens(chat: ChatModel, items: Sequence[Encoded], *, token_budget: int = 2048) -> list[int]:
    """The token that a greedy answer to each prompt begins with."""
    replay = Replay(chat, items, Ablation(), token_budget=token_budget)
    rows = replay.plain_states().to(chat.dtype)
    parts = [rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS)]
    return [int(token) for part in parts for token in replay.log_probs(part).argmax(-1)]


def compare(harmful: Floats, harmless: Floats, *, resamples: int = 1000, seed: int = 0) -> HeadContrast:
    """Harmful minus harmless means of scores (prompts, layers, heads); prompts are drawn again within their class.

    Ours (`docs/science.md` C.5 pitfall 6). DataError below two prompts of a class.
    """
    for name, scores in (("harmful", harmful), ("harmless", harmless)):
        if len(scores) < 2:
            raise DataError(f"{name}: {len(scores)} prompts; a contrast with an interval needs 2 or more of each class")
    rng = np.random.default_rng(seed)

    def means(scores: Floats) -> Floats:
        n = len(scores)
        weights = rng.multinomial(n, np.full(n, 1 / n), resamples) / n
        resampled: Floats = np.tensordot(weights, scores, 1)
        return resampled

    low, high = np.quantile(means(harmful) - means(harmless), [0.025, 0.975], axis=0)
    return HeadContrast(harmful.mean(0) - harmless.mean(0), low, high)


def permuted_contrasts(harmful: Floats, harmless: Floats, *, draws: int = 1000, seed: int = 0) -> Floats:
    """The largest contrast over all heads under permuted labels, (draws,): the null of "this head tells them apart"."""
    scores = np.concatenate([harmful, harmless]).reshape(len(harmful) + len(harmless), -1)
    rng = np.random.default_rng(seed)
    largest = np.empty(draws)
    for i in range(draws):
        order = rng.permutation(len(scores))
        means = scores[order[: len(harmful)]].mean(0) - scores[order[len(harmful) :]].mean(0)
        largest[i] = np.nanmax(means)
    return largest


def top_heads(scores: Floats, k: int) -> list[Site]:
    """The k heads with the largest scores (layers, heads), largest first; ties by layer and head, NaN never."""
    order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), axis=None, kind="stable")
    heads = [Site("head", *(int(x) for x in np.unravel_index(i, scores.shape))) for i in order[:k]]
    if len(heads) < k or np.isnan(scores[heads[-1].layer, heads[-1].head]):
        raise DataError(f"heads: {k} were asked for, {int((~np.isnan(scores)).sum())} have a score")
    return heads


def subspace(states: Floats, r: int, centred: bool) -> Floats:
    """The first r left singular vectors, (prompts, r), of states (prompts, width): arXiv 2410.13708 section 4.1.

    DataError when there are too few prompts, they do not span r directions, or states are not finite.
    """
    rows = len(states)
    if not 1 <= r < rows:
        raise DataError(f"r: {r} directions need at least {max(r, 1) + 1} prompts, and r at least 1; there are {rows}")
    if not np.isfinite(states).all():
        raise DataError("activations: not finite; load the model in float32")
    matrix = states.astype(np.float64)
    # Centred, the states of n prompts span n - 1 directions at most.
    left, sizes, _ = np.linalg.svd(matrix - matrix.mean(0) if centred else matrix, full_matrices=False)
    # Beside the states themselves: what rounding leaves of the same prompt has directions too.
    if len(sizes) < r or sizes[r - 1] <= _ROUNDING * max(float(np.linalg.norm(matrix)), 1e-300):
        raise DataError(f"r: the prompts' states do not span {r} directions; are they the same prompt?")
    basis: Floats = left[:, :r]
    return basis


def angles_between(a: Floats, b: Floats) -> float:
    """Sum of the principal angles, in degrees, between the spans of two orthonormal bases (prompts, r).

    arXiv 2410.13708 section 4.1: sum over r of arccos of the singular values of A'B (`docs/science.md` C.1 step 6).
    """
    # By sines where cosines lose their digits (Bjorck and Golub 1973).
    return float(np.degrees(subspace_angles(a, b)).sum())


def dataset_angles(
    chat: ChatModel,
    items: Sequence[Encoded],
    heads: Sequence[Site] | None = None,
    *,
    subspaces: Sequence[tuple[int, bool]],
    ablation: Ablation | None = None,
    standing: Sequence[Site] = (),
    token_budget: int = 2048,
    on_pairs: OnPairs = lambda _done, _all: None,
) -> list[Floats]:
    """Dataset-level Ships for several (r, centred) at the price of one: degrees, (layers, heads) each.

    Raises as `head_effects` and `subspace` do. `standing` heads are ablated beside each one; the reference never is
    (`docs/science.md` C.1 step 7).
    """
    chosen = ablation or Ablation()
    plain = Replay(chat, items, chosen, token_budget=token_budget).plain_states().double().cpu().numpy()
    bases = [subspace(plain, r, centred) for r, centred in subspaces]
    given = head_sites(chat.layout) if heads is None else heads
    wanted = sorted(h for h in given if h not in set(standing))
    maps = [np.full((chat.layout.n_blocks, chat.layout.n_heads), np.nan) for _ in subspaces]
    done = 0
    # A few blocks at a time, so that states of all heads by all prompts are never held at once.
    size = max(chat.layout.n_heads, _STATE_BYTES // (4 * len(items) * chat.layout.width))
    for group in (wanted[i : i + size] for i in range(0, len(wanted), size)):
        states = np.zeros((len(group), *plain.shape), dtype=np.float32)
        replay = Replay(chat, items, chosen, standing=standing, token_budget=token_budget)
        for piece in replay.pieces(group):
            states[np.ix_(piece.heads, piece.prompts)] = piece.states.float().cpu().numpy()
            done += piece.norm_ratio.numel()
            on_pairs(done, len(wanted) * len(items))
        for angles, base, (r, centred) in zip(maps, bases, subspaces, strict=True):
            for head, state in zip(group, states, strict=True):
                angles[head.layer, head.head] = angles_between(base, subspace(state, r, centred))
    return maps


def sahara(
    chat: ChatModel,
    items: Sequence[Encoded],
    heads: Sequence[Site] | None = None,
    *,
    steps: int = 3,
    r: int = 1,
    centred: bool = False,
    ablation: Ablation | None = None,
    token_budget: int = 2048,
    known: Sequence[Floats] = (),
    on_step: Callable[[int, Floats], None] = lambda _step, _angles: None,
    on_pairs: OnPairs = lambda _done, _all: None,
) -> Sahara:
    """Grow a group of `steps` heads, each the one that, with those before it, turns the subspace most.

    Algorithm 1 of arXiv 2410.13708 section 4.2; angles in degrees. DataError when `steps` is not in 1..heads.
    `known` are the angles of steps that are done already (of the same prompts and parameters): they are not computed
    again. `on_step(s, angles)` is called after each step that is.
    """
    given = list(head_sites(chat.layout) if heads is None else heads)
    if not 1 <= steps <= len(given):
        raise DataError(f"steps: {steps} is not in 1..{len(given)}, the number of heads")
    chosen: list[Site] = []
    angles = list(known)[:steps]
    for step in range(steps):
        if step == len(angles):
            angles += dataset_angles(
                chat,
                items,
                given,
                subspaces=[(r, centred)],
                ablation=ablation,
                standing=chosen,
                token_budget=token_budget,
                on_pairs=on_pairs,
            )
            on_step(step, angles[step])
        chosen += top_heads(angles[step], 1)
    return Sahara(tuple(chosen), tuple(angles))
