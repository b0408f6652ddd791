"""Token aggregation: one score a message from one value a token.

An aggregation is written `last_prompt`, `last_response`, or `last(SPAN)`, `mean(SPAN)`, `max_rolling_mean(W, SPAN)`,
`top_mean(K, W, SPAN)`, `ema_max(A, SPAN)`. SPAN is one of SPANS: `prompt` and `response` are all their tokens, the chat
template's with them; `turns` is the own text of all turns, whoever wrote it; `user` that of all user turns, `last_user`
that of the last user turn that has text, `system` and `tool` that of such turns (`probes.capture.batches`). The tokens
of a span that is in several places are read as if they followed each other, so that a window may go from the end of one
turn over the start of the next.

`top_mean` is the mean of the K highest rolling means of W tokens: evidence has to be in several windows, where
`max_rolling_mean` needs one. A span of fewer than W tokens has one window: all of it. One of fewer than K windows is
the mean of those it has. The exponential average starts at the span's first value.

What follows a span's tokens cannot lower a maximum over them in a causal model. That holds for `max_rolling_mean` from
W tokens on, for `top_mean` from W + K - 1, and for `ema_max` always: in a shorter span the windows are not whole yet,
and a further token changes what they hold.

A message's score does not depend on its batch mates: padding (on the right) is masked with -inf for maxima and with
weights for means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from probes.errors import ProbesError

Span = Literal["prompt", "response", "turns", "user", "last_user", "system", "tool"]
SPANS: tuple[Span, ...] = get_args(Span)
Kind = Literal["last", "mean", "max_rolling_mean", "top_mean", "ema_max"]

_CALL = re.compile(r"^(\w+)\(\s*([^()]*?)\s*\)$")
_WHOLE = re.compile(r"\d{1,9}")
_NUMBER = re.compile(r"\d*\.?\d+(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Aggregation:
    """How the values of a span's tokens become one score; `parameter` is W or A, `top` is K."""

    kind: Kind
    span: Span
    parameter: float = 0.0
    top: int = 1

    def __str__(self) -> str:
        if self.kind == "last":
            return f"last_{self.span}" if self.span in ("prompt", "response") else f"last({self.span})"
        if self.kind == "mean":
            return f"mean({self.span})"
        if self.kind == "top_mean":
            return f"top_mean({self.top}, {int(self.parameter)}, {self.span})"
        # In full: a card that rounds its parameter would score otherwise than the probe that was fitted.
        number = int(self.parameter) if self.kind == "max_rolling_mean" else float(self.parameter)
        return f"{self.kind}({number!r}, {self.span})"

    @property
    def is_maximum(self) -> bool:
        """Whether it takes the highest of many values, and so does not commute with an average of directions."""
        return self.kind not in ("last", "mean")

    def __call__(self, values: Tensor, span: Tensor) -> Tensor:
        """values (batch, tokens, k), span (batch, tokens) bool -> (batch, k).

        A row whose span is empty gets NaN: it was not scored.
        """
        # Filled and not multiplied: what is outside the span may be infinite.
        values = values.float().masked_fill(~span.unsqueeze(2), 0.0)
        count = span.sum(1)
        if self.kind == "last":
            last = (span.long().cumsum(1).argmax(1)).view(-1, 1, 1).expand(-1, 1, values.shape[2])
            score = values.gather(1, last).squeeze(1)
        elif self.kind == "mean":
            score = values.sum(1) / count.clamp(min=1).unsqueeze(1)
        else:
            levels = self.levels(compacted(values, span), count)
            highest = levels.topk(min(self.top, levels.shape[1]), dim=1).values
            taken = self.windows(count).clamp(max=self.top).unsqueeze(1)
            missing = torch.arange(highest.shape[1], device=values.device) >= taken
            score = (highest.masked_fill(missing.unsqueeze(2), 0.0).sum(1) / taken.clamp(min=1)).float()
        return score.masked_fill((count == 0).unsqueeze(1), float("nan"))

    def by_turn(self, values: Tensor, span: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """What each turn gives by itself: (batch, turns, k), and whether it gives anything, (batch, turns) bool.

        `turn` (batch, tokens) is the turn of each token, -1 where it is of none. Of a maximum it is the highest window
        that ends in the turn; else the aggregate of the turn's tokens.
        """
        rows, width, k = values.shape
        turns = int(turn.max()) + 1 if turn.numel() else 0
        # What is of no turn goes to a column behind the others, which is cut off.
        turn = torch.where(span & (turn >= 0), turn, turns)
        values = values.double().masked_fill(~span.unsqueeze(2), 0.0)
        place = torch.arange(width, device=values.device).expand(rows, width)
        if self.is_maximum:
            count = span.sum(1)
            values = self.levels(compacted(values, span), count)
            kept = compacted(turn.unsqueeze(2).double(), span).squeeze(2).long()
            turn = torch.where(place < count.unsqueeze(1), kept, turns)
        empty = values.new_zeros(rows, turns + 1, k)
        index = turn.unsqueeze(2).expand(-1, -1, k)
        if self.is_maximum:
            made = (empty - torch.inf).scatter_reduce(1, index, values, "amax")
            there = (made > -torch.inf).any(2) | made.isnan().any(2)
        else:
            here = empty[:, :, 0].scatter_add(1, turn, torch.ones_like(values[:, :, 0]))
            there = here > 0
            if self.kind == "mean":
                made = empty.scatter_add(1, index, values) / here.clamp(min=1).unsqueeze(2)
            else:
                last = torch.zeros_like(empty[:, :, 0], dtype=torch.long).scatter_reduce(1, turn, place, "amax")
                made = values.gather(1, last.unsqueeze(2).expand(-1, -1, k))
        return made[:, :turns].float(), there[:, :turns]

    def windows(self, count: Tensor) -> Tensor:
        """How many windows a span of so many tokens has."""
        if self.kind == "ema_max":
            return count
        return torch.where(count > 0, (count - int(self.parameter) + 1).clamp(min=1), 0)

    def levels(self, values: Tensor, count: Tensor) -> Tensor:
        """What the maximum is taken of, (batch, tokens, k) in float64: at each token the window that ends there.

        `values` are those of the span, compacted; `count` is how many a row has. -inf where no window ends.
        """
        place = torch.arange(values.shape[1], device=values.device)
        if self.kind == "ema_max":
            levels = _exponential(values.double(), self.parameter)
            whole = place < count.unsqueeze(1)
        else:
            # A window is whole when it holds W tokens of the span, or all of a shorter one.
            width = count.clamp(min=1, max=int(self.parameter))
            levels = _rolling(values.double(), int(self.parameter)) / width.view(-1, 1, 1)
            whole = (place >= width.unsqueeze(1) - 1) & (place < count.unsqueeze(1))
        return levels.masked_fill(~whole.unsqueeze(2), -torch.inf)


def compacted(values: Tensor, span: Tensor) -> Tensor:
    """The span's values of each row one after the other from the left, and zeros behind: (batch, tokens, k)."""
    rows, width, k = values.shape
    # What is outside goes to a column of its own, which is cut off.
    target = torch.where(span, span.long().cumsum(1) - 1, width).unsqueeze(2).expand(-1, -1, k)
    made = values.new_zeros(rows, width + 1, k).scatter(1, target, values)[:, :width]
    return made.masked_fill((torch.arange(width, device=span.device) >= span.sum(1, keepdim=True)).unsqueeze(2), 0.0)


def _rolling(values: Tensor, width: int) -> Tensor:
    """Sums of the last `width` values up to each place."""
    total = values.cumsum(1)
    if width >= total.shape[1]:
        return total
    return torch.cat([total[:, :width], total[:, width:] - total[:, :-width]], 1)


def _exponential(values: Tensor, alpha: float) -> Tensor:
    """Exponential averages up to each place, in as many steps as the length has binary digits."""
    average = torch.cat([values[:, :1], alpha * values[:, 1:]], 1)
    step, decay = 1, 1 - alpha
    while step < average.shape[1] and decay > 0:
        average = torch.cat([average[:, :step], average[:, step:] + decay * average[:, :-step]], 1)
        step, decay = 2 * step, decay * decay
    return average


def parse_aggregation(text: str) -> Aggregation:
    """Read an aggregation as written in a card; ProbesError names what is allowed."""
    if text in ("last_prompt", "last_response"):
        return Aggregation("last", "prompt" if text == "last_prompt" else "response")
    match = _CALL.match(text.strip())
    made = _parsed(match[1], [part.strip() for part in match[2].split(",")]) if match else None
    if made is None:
        raise ProbesError(
            f"aggregation: {text!r} is none of last_prompt, last_response, last(SPAN), mean(SPAN), "
            "max_rolling_mean(W, SPAN), top_mean(K, W, SPAN) with K and W whole numbers from 1, "
            f"ema_max(A, SPAN) with 0 < A <= 1; SPAN is one of {', '.join(SPANS)}"
        )
    return made


def _parsed(kind: str, parts: list[str]) -> Aggregation | None:
    *numbers, name = parts
    span = next((span for span in SPANS if span == name), None)
    if span is None:
        return None
    whole = [int(number) for number in numbers if _WHOLE.fullmatch(number) and int(number) >= 1]
    match kind, len(numbers):
        case (("last" | "mean"), 0):
            return Aggregation("last" if kind == "last" else "mean", span)
        case "max_rolling_mean", 1 if whole:
            return Aggregation("max_rolling_mean", span, whole[0])
        case "top_mean", 2 if len(whole) == 2:
            return Aggregation("top_mean", span, whole[1], whole[0])
        case "ema_max", 1 if _NUMBER.fullmatch(numbers[0]) and 0 < float(numbers[0]) <= 1:
            return Aggregation("ema_max", span, float(numbers[0]))
    return None
