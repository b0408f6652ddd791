"""Whether a model may be read with reuse: token sequences made up for it, read plainly and in each other way.

Contract: `settle(reader, scorer, tolerance)` tries on the loaded model what the reader would do, and switches off what
gives other scores: reading a sequence within another (a decoder that is not causal), kept prefixes (a class whose cache
is unlike others, such as one with a state), and passes without a mask. It returns what was switched off, in words. It
also measures what a pass costs beside its tokens.

Scores under every reader are compared, of spans at the beginning and the end of sequences that share beginnings of
unlike lengths: `tolerance` is 1e-4 in float32 and the card's in other dtypes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from probes.capture.batches import Encoded
from probes.model.spans import TurnSpan
from probes.reuse.scores import scored
from probes.reuse.sequences import Reuse, SequenceReader
from probes.scoring import Scorer

_SHORT, _LONG = 8, 72


def settle(reader: SequenceReader, scorer: Scorer, vocabulary: int, tolerance: float) -> list[str]:
    """See the module. The reader keeps nothing of the trial."""
    reader.fixed_tokens = fixed_tokens(scorer, vocabulary)
    items = made_up(vocabulary)
    nothing = Reuse(within=False, prefixes=False)
    wanted = _scores(items, scorer, SequenceReader(scorer.projection, token_budget=1, reuse=nothing))

    def trial(reuse: Reuse) -> str | None:
        one = SequenceReader(scorer.projection, max_bytes=reader.max_bytes, reuse=reuse)
        return _differs(items, scorer, one, wanted, tolerance)

    everything = Reuse(masks=False)
    if trial(everything) is None:
        reader.reuse = everything
        return []
    reasons = {
        "passes without an attention mask": trial(replace(nothing, masks=False)),
        "reading a message within another": trial(replace(nothing, within=True)),
        "kept prefixes": trial(replace(nothing, prefixes=True)) if reader.max_bytes else None,
    }
    masks, within, prefixes = (reason is not None for reason in reasons.values())
    reader.reuse = Reuse(within=not within, prefixes=not prefixes, masks=masks)
    if not any(reasons.values()):
        # Each is right by itself.
        reader.reuse, reasons["all ways together"] = nothing, trial(everything)
    return [f"{name}: {reason}" for name, reason in reasons.items() if reason is not None]


def fixed_tokens(scorer: Scorer, vocabulary: int) -> int:
    """How many tokens' time a pass costs beside its own tokens', between 1 and 4096."""
    device = scorer.projection.device

    def seconds(tokens: int) -> float:
        ids = torch.arange(tokens, device=device).remainder(vocabulary).unsqueeze(0)
        mask = torch.ones_like(ids, dtype=torch.bool)
        return _time(lambda: scorer.projection(ids, mask).cpu())

    short, long = seconds(_SHORT), seconds(_LONG)
    each = max(long - short, 1e-9) / (_LONG - _SHORT)
    return int(min(4096, max(1, (short - _SHORT * each) / each)))


def _time(work: Callable[[], object], repeats: int = 2) -> float:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def made_up(vocabulary: int) -> list[Encoded]:
    """Ten sequences: three with a long beginning in common, of which one is within another, some that go on from
    others, and some of their own; each with a system turn, a user's turn and a response."""
    state = torch.Generator().manual_seed(7)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, vocabulary, (count,), generator=state).tolist())

    first = ids(41)
    longer = first + ids(9)
    made = [first, longer, longer + ids(18), first[:35] + ids(7), ids(20), ids(3), longer[:48] + ids(33)]
    return [_item(each) for each in made]


def _item(ids: tuple[int, ...]) -> Encoded:
    prompt = max(2, len(ids) - 7)
    middle = max(1, prompt // 2)
    turns = (TurnSpan(0, "system", 1, middle), TurnSpan(1, "user", middle, prompt), TurnSpan(2, "tool", 0, middle))
    return Encoded(ids, prompt, turns=turns, last_user=1, spans="known")


def _scores(items: list[Encoded], scorer: Scorer, reader: SequenceReader) -> torch.Tensor:
    made = torch.empty(len(items), len(scorer.readers))
    for batch, scores in scored(items, scorer, reader):
        made[list(batch.rows)] = scores.total
    return made


def _differs(
    items: list[Encoded], scorer: Scorer, reader: SequenceReader, wanted: torch.Tensor, tolerance: float
) -> str | None:
    try:
        # Twice: what the first time keeps is used the second.
        found = [_scores(items, scorer, reader) for _ in range(2)]
    except Exception as error:
        return f"{type(error).__name__} on this class of model"
    most = max(float((each - wanted).abs().nan_to_num().max()) for each in found)
    same_gaps = all(bool((each.isnan() == wanted.isnan()).all()) for each in found)
    scale = float(wanted.abs().nan_to_num().max())
    if same_gaps and most <= tolerance * max(1.0, scale):
        return None
    return f"scores differ by {most:.2g} on this class of model"
