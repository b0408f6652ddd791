"""Token aggregation: one score a message from one value a token.

An aggregation is written `last_prompt`, `last_response`, or `mean(SPAN)`, `max_rolling_mean(W, SPAN)`,
`ema_max(A, SPAN)` with SPAN `prompt` or `response`. Prompt tokens include the chat template's. A span of fewer than
W tokens has one window: all of it. The exponential average starts at the span's first value.

A message's score does not depend on its batch mates: padding (on the right) is masked with -inf for maxima and with
weights for means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from probes.errors import ProbesError

Span = Literal["prompt", "response"]
_CALL = re.compile(r"^(mean|max_rolling_mean|ema_max)\(\s*(?:(\d*\.?\d+(?:e[+-]?\d+)?)\s*,\s*)?(prompt|response)\s*\)$")


@dataclass(frozen=True)
class Aggregation:
    """How the values of a span's tokens become one score; `parameter` is W or A."""

    kind: Literal["last", "mean", "max_rolling_mean", "ema_max"]
    span: Span
    parameter: float = 0.0

    def __str__(self) -> str:
        if self.kind == "last":
            return f"last_{self.span}"
        if self.kind == "mean":
            return f"mean({self.span})"
        # In full: a card that rounds its parameter would score otherwise than the probe that was fitted.
        number = int(self.parameter) if self.kind == "max_rolling_mean" else float(self.parameter)
        return f"{self.kind}({number!r}, {self.span})"

    def __call__(self, values: Tensor, span: Tensor) -> Tensor:
        """values (batch, tokens, k), span (batch, tokens) bool, contiguous in each row -> (batch, k).

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
        elif self.kind == "max_rolling_mean":
            score = _max_rolling_mean(values, span, int(self.parameter))
        else:
            score = _ema_max(values, span, self.parameter)
        return score.masked_fill((count == 0).unsqueeze(1), float("nan"))


def _max_rolling_mean(values: Tensor, span: Tensor, width: int) -> Tensor:
    total = values.double().cumsum(1)
    seen = span.long().cumsum(1)
    before = torch.cat([torch.zeros_like(total[:, :1]), total], 1)[:, : total.shape[1]]
    start = (torch.arange(total.shape[1], device=values.device) - (width - 1)).clamp(min=0)
    window = total - before[:, start]
    # A window is whole when it holds `width` span tokens, or all of a shorter span.
    needed = torch.minimum(seen[:, -1:], torch.tensor(width, device=values.device))
    inside = seen - torch.cat([torch.zeros_like(seen[:, :1]), seen], 1)[:, : seen.shape[1]][:, start]
    whole = (inside >= needed) & span
    means = window / needed.clamp(min=1).unsqueeze(2)
    return means.masked_fill(~whole.unsqueeze(2), -torch.inf).amax(1).float()


def _ema_max(values: Tensor, span: Tensor, alpha: float) -> Tensor:
    average = torch.zeros_like(values[:, 0])
    best = torch.full_like(average, -torch.inf)
    started = torch.zeros_like(span[:, :1])
    for t in range(values.shape[1]):
        inside = span[:, t : t + 1]
        following = torch.where(started, alpha * values[:, t] + (1 - alpha) * average, values[:, t])
        average = torch.where(inside, following, average)
        best = torch.where(inside, torch.maximum(best, average), best)
        started = started | inside
    return best


def parse_aggregation(text: str) -> Aggregation:
    """Read an aggregation as written in a card; ProbesError names what is allowed."""
    if text in ("last_prompt", "last_response"):
        return Aggregation("last", "prompt" if text == "last_prompt" else "response")
    match = _CALL.match(text.strip())
    if match:
        kind, number, span = match.groups()
        if kind == "mean" and number is None:
            return Aggregation("mean", span)  # type: ignore[arg-type]
        if kind == "max_rolling_mean" and number and number.isdigit() and int(number) >= 1:
            return Aggregation("max_rolling_mean", span, int(number))  # type: ignore[arg-type]
        if kind == "ema_max" and number and 0 < float(number) <= 1:
            return Aggregation("ema_max", span, float(number))  # type: ignore[arg-type]
    raise ProbesError(
        f"aggregation: {text!r} is none of last_prompt, last_response, mean(SPAN), max_rolling_mean(W, SPAN) with W "
        "a whole number from 1, ema_max(A, SPAN) with 0 < A <= 1; SPAN is prompt or response"
    )
