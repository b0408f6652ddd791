"""Scores of many messages from values of their token sequences, each read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.nn.utils.rnn import pad_sequence

from probes.capture.batches import Batch, Encoded, collate
from probes.capture.grouping import by_cost
from probes.reuse.sequences import SequenceReader
from probes.scoring import Scorer, Scores


def scored(
    items: Sequence[Encoded], scorer: Scorer, reader: SequenceReader, *, turns: bool = False
) -> Iterator[tuple[Batch, Scores]]:
    """Batches with their scores; `batch.rows` are the places of its messages among `items`. With `turns` the scores by
    turn are there for batches that hold a message of several turns: one of one turn is that turn's score."""
    for chosen, values in reader.read([item.ids for item in items]):
        lengths = [len(items[i].ids) for i in chosen]
        for group in by_cost(lengths, budget=reader.token_budget):
            rows = [chosen[n] for n in group]
            own = [items[i] for i in rows]
            batch = collate(own, scorer.projection.device, rows)
            several = turns and any(len(item.turns) > 1 for item in own)
            yield batch, scorer.scores(pad_sequence([values[n] for n in group], batch_first=True), batch, turns=several)
