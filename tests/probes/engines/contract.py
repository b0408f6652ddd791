"""What every engine must do, as tests: a subclass gives the engine, and its own environment runs them.

The model is a random one of three blocks in float32; what it is compared with is one plain forward pass of transformers
for each message, and plain arithmetic in float64 over its tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.calibration import Calibration
from probes.capture.aggregation import Aggregation
from probes.capture.batches import Encoded, collate, encode
from probes.capture.sites import Site
from probes.card import Probe, load_probe, save_probe
from probes.directions import Direction
from probes.engines.base import Engine
from probes.errors import EngineError, ProbeMismatchError
from probes.evaluation import Interval
from probes.identity import new_probe, replay_references
from probes.model.load import ChatModel, load_chat_model
from probes.scoring import Reader, Scorer
from tests.probes.test_scoring import TEXTS, conversation, direction, readers_of, slow_scores
from tests.vllm.models import saved

_CALIBRATION = Calibration(0.0, 0.01, Interval(0.0, 0.0, 0.1, 30), False, 30, "0" * 64, "none", "2026-03-01", ())


@dataclass(frozen=True)
class Model:
    """A saved checkpoint, loaded by transformers, and probes of every site, aggregation and way to combine."""

    folder: Path
    chat: ChatModel
    cards: tuple[Path, ...]


def made_in(folder: Path) -> Model:
    """The model and its probes' cards, of any of which the references are transformers' scores."""
    path = saved(folder / "model", "llama")
    chat = load_chat_model(str(path), folder / "state", dtype="float32", device="cpu")
    cards = []
    for number, reader in enumerate(readers_of(chat.layout)):
        probe = new_probe(
            chat, reader, name=f"p{number}", description="for tests", calibration=_CALIBRATION, evaluation={}
        )
        # No reference has a system turn.
        there = [reference for reference in probe.card.references if math.isfinite(reference.score)]
        probe.card = probe.card.model_copy(update={"references": there})
        cards.append(save_probe(probe, folder / "cards"))
    return Model(path, chat, tuple(cards))


@dataclass(frozen=True)
class Case:
    """An engine with the probes that it was opened for, and the same model in transformers."""

    engine: Engine
    plain: ChatModel
    probes: tuple[Probe, ...]

    @property
    def readers(self) -> list[Reader]:
        return [probe.reader for probe in self.probes]

    @property
    def items(self) -> list[Encoded]:
        """Of several turns, short ones and one of 600 tokens or more, which comes first."""
        asked = [("An old story, told once more. " * 10, "x" * 31), *TEXTS]
        made = [encode(self.engine.chat, conversation(ask), reply, spans=True) for ask, reply in asked]
        assert max(len(item.ids) for item in made) > 600
        return made


class EngineContract:
    """To be subclassed as a test, with a fixture `case`."""

    tolerance = 1e-4

    def totals(self, case: Case, items: Sequence[Encoded], readers: Sequence[Reader] | None = None) -> torch.Tensor:
        return torch.tensor(case.engine.scores(items, readers or case.readers))

    def close(self, found: torch.Tensor, wanted: torch.Tensor) -> None:
        torch.testing.assert_close(found, wanted, atol=self.tolerance, rtol=self.tolerance, equal_nan=True)

    def test_messages_are_rendered_and_cut_into_tokens_as_by_transformers(self, case: Case) -> None:
        for ask, reply in TEXTS:
            here, there = (
                encode(chat, conversation(ask), reply, spans=True) for chat in (case.engine.chat, case.plain)
            )
            assert here == there
        assert case.engine.chat.layout.n_blocks == case.plain.layout.n_blocks
        assert case.engine.chat.identity.weights_sha256 == case.plain.identity.weights_sha256

    def test_scores_are_those_of_plain_arithmetic(self, case: Case) -> None:
        items = case.items
        wanted = [[slow_scores(case.plain, item, reader) for reader in case.readers] for item in items]
        np.testing.assert_allclose(case.engine.scores(items, case.readers), wanted, atol=self.tolerance, rtol=1e-5)

    def test_no_message_depends_on_its_batch_mates_or_on_what_was_read_before(self, case: Case) -> None:
        items = case.items
        session = case.engine.session(case.readers, token_budget=256, reuse_bytes=2**20)

        def totals(some: Sequence[Encoded]) -> torch.Tensor:
            made = torch.full((len(some), len(case.readers)), torch.nan)
            for batch, scores in session.score(some):
                made[list(batch.rows)] = scores.total
            return made

        alone = torch.cat([self.totals(case, [item]) for item in items])
        assert alone.std(0).min() > 1e-3  # the messages do differ
        order = [3, 0, 4, 1, 2, 5]
        self.close(totals([items[i] for i in order]), alone[order])
        self.close(totals(items), alone)
        self.close(torch.cat([totals([items[i]]) for i in order]), alone[order])

    def test_what_begins_alike_or_is_equal_has_scores_of_its_own(self, case: Case) -> None:
        whole = case.items[2]
        cut = [Encoded(whole.ids[:n], min(n, whole.n_prompt), spans="known") for n in (5, 6, len(whole.ids) - 1)]
        items = [*cut, Encoded(whole.ids, whole.n_prompt, spans="known"), cut[0]]
        readers = [r for r in case.readers if r.aggregation.span in ("prompt", "response")]
        scorer = Scorer(case.plain.layout, readers, case.plain.device)
        wanted = torch.cat([scorer(collate([item], case.plain.device)).total for item in items])
        for _ in range(2):
            self.close(self.totals(case, items, readers), wanted)

    def test_turns_parts_and_counts_are_those_of_transformers(self, case: Case) -> None:
        items = case.items
        scorer = Scorer(case.plain.layout, case.readers, case.plain.device)
        seen = set()
        for batch, scores in case.engine.session(case.readers).score(items, turns=True):
            wanted = scorer(collate(list(batch.items), case.plain.device), turns=True)
            self.close(scores.total, wanted.total)
            assert torch.equal(scores.counts, wanted.counts)
            for found, expected in zip(scores.parts, wanted.parts, strict=True):
                self.close(found, expected)
            assert scores.turns is not None
            assert wanted.turns is not None
            for found_turns, wanted_turns in zip(scores.turns, wanted.turns, strict=True):
                for one, other in zip(found_turns, wanted_turns, strict=True):
                    assert [turn for turn, _ in one] == [turn for turn, _ in other]
                    assert [s for _, s in one] == pytest.approx([s for _, s in other], abs=self.tolerance)
            seen |= set(batch.rows)
        assert seen == set(range(len(items)))

    def test_a_span_without_a_token_has_no_score(self, case: Case) -> None:
        item = encode(case.engine.chat, conversation("No reply yet."), None, spans=True)
        found = self.totals(case, [item])[0]
        without = torch.tensor([reader.aggregation.span == "response" for reader in case.readers])
        assert torch.equal(found.isnan(), without)

    def test_some_of_the_readers_give_what_all_give(self, case: Case) -> None:
        items = case.items[:3]
        some = case.readers[3::7][::-1]
        self.close(
            self.totals(case, items, some), self.totals(case, items)[:, list(range(3, len(case.readers), 7))[::-1]]
        )

    def test_references_are_replayed_through_it(self, case: Case) -> None:
        replayed = [probe for probe in case.probes if probe.card.references]
        for probe in replayed[::9]:
            assert replay_references(probe, case.engine.chat, case.engine) <= self.tolerance * 10
        probe = replayed[0]
        first = probe.card.references[0]
        moved = first.model_copy(update={"score": first.score + 2 * probe.card.tolerance})
        card = probe.card.model_copy(update={"references": [moved, *probe.card.references[1:]]})
        other = Probe(card, probe.directions)
        with pytest.raises(ProbeMismatchError, match=f"reference scores differ by .* by {case.engine.label}"):
            replay_references(other, case.engine.chat, case.engine)

    def test_what_the_model_has_no_place_for_is_refused_by_name(self, case: Case) -> None:
        good = case.probes[0]
        last = Aggregation("last", "prompt")
        nowhere = Reader((Direction(Site("residual", 9), np.ones(96), np.zeros(96), 1.0),), last)
        narrow = Reader((Direction(Site("final"), np.ones(7), np.zeros(7), 1.0),), last)
        plan = case.engine.plan({good.name: good.reader, "nowhere": nowhere, "narrow": narrow})
        assert plan.accepted == (good.name,)
        assert plan.refused == {
            "nowhere": "site: residual[9] is not in this model; it has blocks 0..2",
            "narrow": "direction at final: 7 values, the site has 96",
        }
        with pytest.raises(EngineError, match=r"probe nowhere: site: residual\[9\].*probe narrow: direction at final"):
            plan.check()

    def test_nobody_waits_any_more(self, case: Case) -> None:
        class Gone(Exception):  # noqa: N818
            pass

        def gone() -> None:
            raise Gone

        session = case.engine.session(case.readers[:1])
        session.before_pass = gone
        item = encode(case.engine.chat, conversation("A message that nothing was read of yet."), "No.", spans=True)
        with pytest.raises(Gone):
            list(session.score([item]))
        session.before_pass = lambda: None
        self.close(torch.cat([s.total for _, s in session.score([item])]), self.totals(case, [item])[:, :1])

    def test_what_it_finds_out_at_a_start_can_be_kept(self, case: Case) -> None:
        found = case.engine.session(case.readers, reuse_bytes=2**20).try_out(1e-4)
        kept = json.loads(json.dumps(found))
        assert kept["reasons"] == []
        session = case.engine.session(case.readers, reuse_bytes=2**20)
        session.adopt(kept)
        item = case.items[1]
        self.close(torch.cat([s.total for _, s in session.score([item])]), self.totals(case, [item]))

    def test_it_says_which_engine_and_version_it_is(self, case: Case) -> None:
        name, _, version = case.engine.label.partition(" ")
        assert name == case.engine.name
        assert version[0].isdigit()


def loaded(cards: Sequence[Path]) -> tuple[Probe, ...]:
    """The probes of cards."""
    return tuple(load_probe(card) for card in cards)


__all__ = ["Case", "EngineContract", "Model", "direction", "loaded", "made_in"]
