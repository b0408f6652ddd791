"""The messages of a study of detectors as rows of a model: encoded once, each part by itself.

Contract: `StudyRows.of(chat, data, plan)` splits the pairs (`probes.splits`, the seed of `awry fit`) and encodes
everything. The fit rows are the pairs, then the everyday messages, then the ordinary ones: `members(n)` are the pairs
and the first n everyday messages, `members(None)` all. DataError where a split has too few pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.capture.batches import encode
from probes.errors import DataError
from probes.model.load import ChatModel, user_message
from probes.reading.conversation import Conversation
from probes.rows import Row
from probes.splits import SPLITS, split_of
from probes.studies.detectors.plan import FEWEST_PAIRS, DetectorData, DetectorPlan, Turns


@dataclass(frozen=True)
class StudyRows:
    """Rows by what they are for. `select` and `test` are the harmful requests first, then their twins, in one order."""

    fit: list[Row]
    select: list[Row]
    choosing: list[Row]
    calibrate: list[Row]
    test: list[Row]
    everyday: list[Row]
    other_harmful: list[Row]
    other_benign: list[Row]
    pairs: dict[str, int]
    everyday_in_fit: int

    @staticmethod
    def of(chat: ChatModel, data: DetectorData, plan: DetectorPlan) -> StudyRows:
        """All rows, encoded with the spans of turns."""
        pairs = {name: [p for p in data.pairs if split_of(p.group) == name] for name, _ in SPLITS}
        for name, members in pairs.items():
            if len(members) < FEWEST_PAIRS:
                raise DataError(
                    f"requests: {len(members)} pairs in the {name} split; at least {FEWEST_PAIRS} are needed in each "
                    "(fit 50 %, select 20 %, test 30 %): give more pairs"
                )

        def row(turns: Turns, text: str, wrong: bool, group: str) -> Row:
            encoded = encode(chat, turns, None, plan.max_tokens, spans=True)
            return Row(encoded, text, wrong, group, conversation=Conversation(turns))

        def requests(split: str) -> list[Row]:
            own = pairs[split]
            return [
                *(row(user_message(p.harmful), p.harmful, True, p.group) for p in own),
                *(row(user_message(p.harmless), p.harmless, False, p.group) for p in own),
            ]

        def texts(messages: Iterable[str], wrong: bool = False) -> list[Row]:
            return [row(user_message(text), text, wrong, text) for text in messages]

        def longer(messages: Sequence[Turns]) -> list[Row]:
            joined = ["\n".join(str(turn.get("content", "")) for turn in turns) for turns in messages]
            return [row(turns, text, False, text) for turns, text in zip(messages, joined, strict=True)]

        return StudyRows(
            fit=[*requests("fit"), *texts(data.everyday["fit"]), *longer(data.ordinary)],
            select=requests("select"),
            choosing=[*texts(data.everyday["select"]), *longer(data.choosing)],
            calibrate=[*texts(data.everyday["calibrate"]), *longer(data.longer)],
            test=requests("test"),
            everyday=texts(data.everyday["test"]),
            other_harmful=texts(data.other_harmful, wrong=True),
            other_benign=texts(data.other_benign),
            pairs={name: len(members) for name, members in pairs.items()},
            everyday_in_fit=len(data.everyday["fit"]),
        )

    def members(self, everyday: int | None) -> NDArray[np.bool_]:
        """Which fit rows count: pairs and so many everyday messages; None: all rows."""
        count = len(self.fit) if everyday is None else 2 * self.pairs["fit"] + min(everyday, self.everyday_in_fit)
        return np.arange(len(self.fit)) < count

    def counts(self) -> dict[str, int | dict[str, int]]:
        """How many messages there are of each part, for a report."""
        return {
            "pairs": self.pairs,
            "everyday_fit": self.everyday_in_fit,
            "ordinary_fit": len(self.fit) - 2 * self.pairs["fit"] - self.everyday_in_fit,
            "choosing": len(self.choosing),
            "calibrate": len(self.calibrate),
            "everyday_test": len(self.everyday),
            "other_harmful": len(self.other_harmful),
            "other_benign": len(self.other_benign),
        }
