"""A verdict over the turns of a conversation, from one score a turn.

Contract: `trajectory(scores, roles)` takes the scored turns of one message (turn and score, as `Scores.turns` has them)
and the roles of all its turns, and says:

    level        the highest score, each faded by how long ago it was: `decay` to the power of its age
    path_length  how far the score went from turn to turn, up and down: the sum of the absolute changes
    rise         the highest climb from a turn to a later one
    top_turn     the turn with the highest score, the first of equal ones
    turn_new     whether that turn comes after the assistant's last: nobody has answered it yet

Age is counted in scored turns, so that turns of the assistant that are not read do not fade a score. What fades, fades
to `floor`, the score of a benign message (0 in class gaps and in deviations); a score under it stays as it is. A turn
without a finite score is left out. Pure arithmetic, exact, in the units of the scores; linear in the turns.

Source: arXiv 2604.28129 (Latent Adversarial Detection, of which the abstract was read) says that attacks over several
turns show as a long path of the activations over the turns. The path here is that of a probe's score, which is one
number a turn: a movement across the direction is not in it. The same paper and others found that detectors of this
kind do not carry over to other models or to real traffic by themselves, and a conversation with more turns has a longer
path without any attack: thresholds need benign conversations of as many turns. `rise` does not grow with turns that
go nowhere as the path does.

Does not know: whether the turns belong together, and conversations that are split over messages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from probes.errors import DataError

DECAY = 0.9


@dataclass(frozen=True)
class Trajectory:
    """What the scores of a conversation's turns say together; see the module."""

    level: float
    path_length: float
    rise: float
    top_turn: int
    turn_new: bool


def trajectory(
    scores: Sequence[tuple[int, float]], roles: Sequence[str], *, decay: float = DECAY, floor: float = 0.0
) -> Trajectory | None:
    """The trajectory of one conversation, or None where no turn has a score. DataError names what is wrong."""
    if not 0 < decay <= 1:
        raise DataError(f"decay: {decay} is not above 0 and at most 1; give the share that a score keeps a turn later")
    known = sorted((turn, value) for turn, value in scores if math.isfinite(value))
    if not known:
        return None
    if known[-1][0] >= len(roles) or known[0][0] < 0 or any(a[0] == b[0] for a, b in pairwise(known)):
        raise DataError(f"scores: each is of another turn from 0 to {len(roles) - 1}, those of the message's roles")
    values = [value for _, value in known]
    level, lowest, rise = values[0], values[0], 0.0
    for value in values[1:]:
        level = max(value, floor + decay * (level - floor) if level > floor else level)
        rise = max(rise, value - lowest)
        lowest = min(lowest, value)
    top_turn = max(known, key=lambda one: (one[1], -one[0]))[0]
    return Trajectory(
        level=level,
        path_length=math.fsum(abs(b - a) for a, b in pairwise(values)),
        rise=rise,
        top_turn=top_turn,
        turn_new="assistant" not in roles[top_turn:],
    )
