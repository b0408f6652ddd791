"""Steers one family: chooses where and how strongly, then measures directions on held-out requests.

What is steered is how likely a refusing opening is against an agreeing one as the answer to a request (nats a token,
`probes.heads.choice_scoring`): the last prompt token and all that follow are shifted by alpha sigma u, sigma being that
of the receiver's own direction, so that every direction, mapped or random, is as large as the own one.

Coherence is measured two ways: `undefined`, the share of requests where the likelier opening lost more than 1 nat a
token against the plain model; and `everyday`, by how many nats a token the model's own answers to everyday messages
become less likely. A block and a strength are chosen only among those that keep both (`FamilyPlan.undefined`,
`probes.steer.coherence.MARGIN_NATS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from probes.binary_choice import BinaryChoice
from probes.directions import Direction, Floats
from probes.errors import DataError
from probes.hashing import sha256_arrays, sha256_json
from probes.heads.choice_scoring import PLAIN, ChoiceScorer, SteeringTrial, likelihoods
from probes.heads.row_steering import Shift
from probes.model.load import ChatModel, user_message
from probes.progress import Progress
from probes.result_cache import ResultCache
from probes.steer.coherence import MARGIN_NATS
from probes.steer.generation import generate
from probes.studies.transfer.families.plan import AIMS, Aim, Behaviour, FamilyPlan, FamilyTexts
from probes.studies.transfer.families.reading import FamilyReading


@dataclass(frozen=True)
class SteeringPlace:
    """The own direction where it is steered, and alpha; `coherent` is false where no strength that was tried is."""

    direction: Direction
    alpha: float
    coherent: bool
    tried: int


@dataclass(frozen=True)
class Steered:
    """What one shift did on the test requests.

    `margin` is the refusing opening's log-probability less the agreeing one's (nats a token, a value a request),
    `undefined` is 0 or 1 a request, `everyday` the rise in nats a token of own everyday answers, None where it was not
    measured.
    """

    margin: Floats
    undefined: Floats
    everyday: float | None = None


class FamilySteering:
    """One model, loaded, whose shifts are measured; what the result cache holds is not measured again."""

    def __init__(
        self, reading: FamilyReading, chat: ChatModel, texts: FamilyTexts, plan: FamilyPlan, cache: Path, say: Progress
    ) -> None:
        self._reading, self._chat, self._texts, self._plan, self._say = reading, chat, texts, plan, say
        self._results = ResultCache(cache, {"what": "shifts of one family", "model": reading.identity})
        self._scorer = ChoiceScorer(chat, "likelihood", self._results, token_budget=plan.token_budget)
        self._own_answers: list[BinaryChoice] | None = None

    @property
    def warnings(self) -> list[str]:
        return self._scorer.warnings

    def choose(self, behaviour: Behaviour) -> SteeringPlace:
        """Where the own direction moves the select requests farthest towards refusing, among what stays coherent."""
        last = self._chat.layout.n_blocks - 1
        blocks = {round(depth * last) for depth in self._plan.steered}
        sites = [site for site in dict.fromkeys(self._reading.sites) if site.layer in blocks]
        options = [(self._reading.direction(behaviour, s), a) for s in sites for a in self._plan.alphas]
        self._say(f"{self._reading.family.name}: {behaviour.name}: {len(options)} places and strengths")
        trials = [trial(direction, alpha) for direction, alpha in options]
        outcomes = self._scorer([PLAIN, *trials], self._texts.select)
        effect = (outcomes.margin[1:] - outcomes.margin[0]).mean(1)
        broken, rise = outcomes.undefined[1:].mean(1), self._everyday(trials)
        coherent = (broken <= self._plan.undefined) & (rise <= MARGIN_NATS)
        best = int(np.argmax(np.where(coherent, effect, -np.inf))) if coherent.any() else int(np.argmin(rise))
        direction, alpha = options[best]
        return SteeringPlace(direction, alpha, bool(coherent[best]), len(options))

    def measure(self, trials: Sequence[SteeringTrial]) -> dict[str, Steered]:
        """The plain model and every trial on the test requests, by the trial's name."""
        self._say(f"{self._reading.family.name}: {len(trials)} directions on {len(self._texts.test)} requests")
        outcomes = self._scorer([PLAIN, *trials], self._texts.test)
        return {one.name: Steered(outcomes.margin[i], outcomes.undefined[i]) for i, one in enumerate([PLAIN, *trials])}

    def with_everyday(self, measured: dict[str, Steered], trials: Sequence[SteeringTrial]) -> dict[str, Steered]:
        """The same with the rise on everyday answers for some of the trials."""
        rises = self._everyday(trials)
        return measured | {
            one.name: replace(measured[one.name], everyday=float(rise)) for one, rise in zip(trials, rises, strict=True)
        }

    def _everyday(self, trials: Sequence[SteeringTrial]) -> Floats:
        """By how many nats a token own everyday answers become less likely, (trials,)."""
        rises = []
        for row in self._answers():
            key = f"everyday:{sha256_json([row.question, row.choices[0]])[:24]}"
            found: dict[str, float] = self._results.get(key) or {}
            missing = [t for t in [PLAIN, *trials] if t.name not in found]
            if missing:
                share, budget = self._scorer.share, self._plan.token_budget
                values = likelihoods(self._chat, row, missing, token_budget=budget, share=share)[:, 0]
                found |= {t.name: v for t, v in zip(missing, values.tolist(), strict=True)}
                self._results.put(key, found)
            rises.append([found[PLAIN.name] - found[t.name] for t in trials])
        rise: Floats = np.nan_to_num(np.array(rises), nan=np.inf).mean(0)
        return rise

    def _answers(self) -> list[BinaryChoice]:
        """Everyday messages with the plain model's own answer as the first choice, which alone is looked at."""
        if self._own_answers is None:
            messages = list(self._texts.everyday)
            key = f"own answers {sha256_json([messages, self._plan.max_new_tokens])[:24]}"
            stored = self._results.get(key)
            if stored is None:
                prompts = [self._chat.render(user_message(text)) for text in messages]
                stored = [r.text for r in generate(self._chat, prompts, max_new_tokens=self._plan.max_new_tokens)]
                self._results.put(key, stored)
            pairs = [(asked, text) for asked, text in zip(messages, stored, strict=True) if text]
            if not pairs:
                raise DataError(
                    f"{self._reading.family.name}: answers none of the everyday messages with a word, so that nothing "
                    "says whether it still reads well when steered"
                )
            self._own_answers = [BinaryChoice(asked, (text, text.split()[0]), 1) for asked, text in pairs]
        return self._own_answers


def trial(direction: Direction, alpha: float, aim: Aim = "towards") -> SteeringTrial:
    """One shift, with a name that tells its vector and strength from every other one."""
    signed = alpha if aim == AIMS[0] else -alpha
    digest = sha256_arrays(direction.vector)[:16]
    return SteeringTrial(f"{direction.site} {digest} x{signed * direction.sigma:.9g}", (Shift(direction, signed),))
