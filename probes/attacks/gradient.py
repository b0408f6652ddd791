"""Suffix tokens by gradient: which tokens of the vocabulary would lower a probe's score, to first order.

Contract: `GradientProposals` gives suffixes to try. For each message it runs the decoder on the embedded tokens, reads
the probe's directions at their sites, aggregates over the probe's span and takes the gradient with respect to one-hot
tokens of the suffix (as in GCG); candidates put one or a few of the best tokens into the suffix. Each third candidate
is one of the random search, which finds more than tokens one by one while the budget is small. The gradient is of the
plain reading: corrections for length and second readings are in the score that decides, not in the gradient.

Where the gradient is zero, candidates are random: in a causal model a maximum over windows before the suffix does not
depend on it. `zero_share` says how often that was so.

Candidates are tried as text: tokens that do not decode to printable text, and control tokens, are left out. Sites:
residual, final and heads. Does not know: adapters that forbid gradients, models without an embedding matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probes.attacks.attempts import Attempt, RandomProposals
from probes.capture.batches import Encoded, collate, encode
from probes.capture.sites import Observer, Site, observing
from probes.card import Probe
from probes.errors import DataError
from probes.model.load import ChatModel
from probes.scoring import Reader

# Tokens that a place of the suffix is offered, by gradient.
_TOP = 64
# Tokens of a suffix at the start.
_START = 12
# Messages whose gradients are taken together.
_ROWS = 8
# Suffixes that are tried for one gradient.
_WIDTH = 9


class GradientProposals:
    """Suffixes for each message, several a step."""

    def __init__(self, chat: ChatModel, probe: Probe, vocabulary: Sequence[str], max_tokens: int) -> None:
        self._chat, self._probe, self._max_tokens = chat, probe, max_tokens
        self._words = list(vocabulary)
        self._at_random = RandomProposals(vocabulary)
        embedding: Any = getattr(chat.model, "get_input_embeddings", lambda: None)()
        if not isinstance(getattr(embedding, "weight", None), Tensor):
            raise DataError(f"adaptive: {chat.name} has no embedding matrix; use --adaptive random")
        self._embedding = embedding
        self._allowed = _printable_tokens(chat, self._embedding.weight.shape[0])
        if not self._allowed.any():
            raise DataError(f"adaptive: no token of {chat.name} is printable text; use --adaptive random")
        self._asked = self._zero = 0

    @property
    def zero_share(self) -> float:
        """The share of gradients that said nothing."""
        return self._zero / self._asked if self._asked else 0.0

    def __call__(self, attempts: Sequence[Attempt], left: int) -> list[list[str]]:
        made: list[list[str]] = []
        for start in range(0, len(attempts), _ROWS):
            group = attempts[start : start + _ROWS]
            suffixes = [a.suffix or self._first(a) for a in group]
            encoded = [self._encode(a, suffix) for a, suffix in zip(group, suffixes, strict=True)]
            gradients = self.gradients(encoded)
            for attempt, suffix, item, gradient in zip(group, suffixes, encoded, gradients, strict=True):
                made.append(self._candidates(attempt, suffix, item, gradient, max(0, min(_WIDTH, left - 1))))
        return made

    def _first(self, attempt: Attempt) -> str:
        words: list[str] = []
        while len(self._chat.text_ids(" " + " ".join(words))) < _START:
            words.append(attempt.rng.choice(self._words))
        return " " + " ".join(words)

    def _encode(self, attempt: Attempt, suffix: str) -> Encoded:
        given = attempt.with_suffix(suffix)
        span = self._probe.aggregation.span
        reads = given.response if span == "response" else None
        of_turns = span not in ("prompt", "response")
        return encode(self._chat, given.turns, reads, self._max_tokens, tools=given.tools, spans=of_turns)

    def gradients(self, items: Sequence[Encoded]) -> list[Tensor]:
        """Of the score with respect to each token's embedding: (tokens, width) for each message, float32."""
        batch = collate(items, self._chat.device)
        values: dict[Site, Tensor] = {}

        def observer(place: Site) -> Observer:
            def observe(x: Tensor) -> None:
                values[place] = x

            return observe

        probe = self._probe
        places = {_place(d.site) for d in probe.directions}
        with torch.enable_grad(), observing(self._chat.layout, {place: observer(place) for place in places}) as run:
            embedded = self._embedding(batch.ids).detach().requires_grad_(True)
            run(inputs_embeds=embedded, attention_mask=batch.mask)
            tokens = torch.stack([_projected(values[_place(d.site)], d.site, d) for d in probe.directions], 2)
            read = _read(probe.reader, tokens, batch.span(probe.aggregation.span))
            (gradient,) = torch.autograd.grad(read.nan_to_num().sum(), embedded, allow_unused=True)
        if gradient is None:
            gradient = torch.zeros_like(embedded)
        return [gradient[row, : len(item.ids)].float() for row, item in enumerate(items)]

    def _candidates(self, attempt: Attempt, suffix: str, item: Encoded, gradient: Tensor, width: int) -> list[str]:
        own = self._chat.text_ids(suffix)
        places = self._places(attempt, item, own)
        self._asked += 1
        slopes = torch.stack([gradient[place] for place in places.values()]) if places else None
        useful = slopes is not None and bool(slopes.isfinite().all()) and bool(slopes.abs().max() > 0)
        self._zero += not useful
        best: dict[int, list[int]] = {}
        if useful and slopes is not None:
            weight = self._embedding.weight.detach().float()
            table = (slopes @ weight.T).masked_fill(~self._allowed, torch.inf)
            chosen = table.topk(min(_TOP, int(self._allowed.sum())), dim=1, largest=False).indices
            best = dict(zip(places, chosen.tolist(), strict=True))
        return [
            self._at_random.suffix(attempt) if number % 3 == 0 else self._changed(attempt, own, best)
            for number in range(width)
        ]

    def _changed(self, attempt: Attempt, own: Sequence[int], best: dict[int, list[int]]) -> str:
        """The suffix with some of its tokens replaced by the best for their places, or by any."""
        rng = attempt.rng
        anything = self._allowed.nonzero()[:, 0]
        places = list(best) or list(range(len(own)))
        for _ in range(8):
            ids = list(own)
            for place in rng.sample(places, min(len(places), rng.choice((1, 2, 4, 8)))):
                offered = best.get(place)
                ids[place] = rng.choice(offered) if offered else int(anything[rng.randrange(len(anything))])
            text = self._text(ids)
            if text.isprintable():
                return text
        return self._first(attempt)

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self._chat.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return text if text[:1] == " " else " " + text

    def _places(self, attempt: Attempt, item: Encoded, own: Sequence[int]) -> dict[int, int]:
        """Which token of the message each token of the suffix is, as far as they are the same tokens."""
        bare, ids = self._encode(attempt, "").ids, item.ids
        head = _shared(bare, ids)
        # What follows the message may begin as the suffix does: then the suffix begins earlier.
        for start in range(head, max(-1, head - len(own) - 1), -1):
            if ids[start : start + len(own)] == tuple(own):
                return {i: start + i for i in range(len(own))}
        # Tokens that joined the message's last letters are left out.
        stop = len(ids) - _shared(bare[::-1], ids[::-1])
        same = _shared(tuple(reversed(own)), ids[:stop][::-1])
        return {len(own) - 1 - i: stop - 1 - i for i in reversed(range(same))}


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with together."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _read(reader: Reader, tokens: Tensor, span: Tensor) -> Tensor:
    """Scores (rows,) from every token's class gaps (rows, tokens, directions), as `probes.scoring` gives them."""
    if reader.combine == "mean":
        return reader.aggregation(tokens.mean(2, keepdim=True), span)[:, 0]
    return reader.combined(reader.aggregation(tokens, span))


def _place(site: Site) -> Site:
    return site if site.kind != "head" else Site("head", site.layer)


def _projected(values: Tensor, site: Site, direction: Any) -> Tensor:
    """Class gaps of every token, with its gradient."""
    here = values[:, :, site.head] if site.kind == "head" else values
    vector = torch.as_tensor(direction.vector / direction.norm**2, dtype=torch.float32, device=values.device)
    centre = torch.as_tensor(direction.centre, dtype=torch.float32, device=values.device)
    return (here.float() - centre) @ vector


def _printable_tokens(chat: ChatModel, size: int) -> Tensor:
    """Which ids of the vocabulary are text that a person could send, (size,) bool on the model's device."""
    special, names = set(chat.tokenizer.all_special_ids), set(chat.control_names)
    allowed = torch.zeros(size, dtype=torch.bool)
    for i in range(min(size, len(chat.tokenizer))):
        text = chat.tokenizer.decode([i], clean_up_tokenization_spaces=False)
        # A lone part of a letter decodes to a replacement character.
        whole = bool(text.strip()) and text.isprintable() and "\ufffd" not in text
        allowed[i] = whole and i not in special and text not in names
    return allowed.to(chat.device)
