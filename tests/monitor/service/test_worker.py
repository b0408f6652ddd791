"""Every record ends as a row that says what became of it; nothing counts twice, nothing leaks, bad ones stand alone."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import Engine, text

from monitor.service import progress
from monitor.service.bootstrap import policy_of
from monitor.service.policy import Policy
from monitor.service.scoring import BatchScorer
from monitor.service.worker import Worker
from monitor.settings import Settings
from monitor.stream.jsonl import JsonLines
from monitor.stream.record import Record
from monitor.telemetry import logs, metrics
from monitor.telemetry.waiting import Waiting
from probes.capture.batches import encode
from probes.capture.sites import observing
from probes.model.load import ChatModel
from probes.projection import Projection
from probes.scoring import score_all
from storage import database, schema
from storage.coordinates import Coordinates
from storage.database import connect
from storage.errors import DatabaseUnavailableError
from storage.queries.messages import status_counts
from storage.sources import CONFLICT
from storage.writer import write_batch
from tests.conftest import url_of
from tests.support.alerts.alert_rows import all_alerts
from tests.support.alerts.alert_scenes import rules
from tests.support.models.tiny import hook_count, user
from tests.support.rows import counts, dump, heads_of, stored
from tests.support.stream.worker import MAX_TOKENS, breaking, lines, make_probe, run_worker, scores_of, wire

PROMPTS = [f"message number {n} " + "and so on " * (n % 3) for n in range(12)]
CANARY = "CANARYTEXT"


def traffic(path: Path) -> Path:
    return lines(path, [wire(f"m{n}", p, tenant="shop") for n, p in enumerate(PROMPTS)])


def rows(engine: Engine) -> dict[str, dict[str, Any]]:
    return {str(r["message_id"]): r for r in stored(engine, schema.messages)}


def test_every_record_ends_as_a_row(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    path = lines(
        tmp_path / "t",
        [
            wire("plain"),
            wire("chat", None, messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
            b"{broken",
            b"\xff\xfe",
            b"",
            wire("empty", ""),
            wire("nan", "x", attributes={"a": float("nan")}),
            wire("deep", "x", attributes={"a": json.loads("[" * 500 + "]" * 500)}),
            wire("odd", "nul \x00 and \ufffd", tenant="\x00", attributes={"\x00": "\ud800"}),
            wire("long", "y" * 300),
            wire("big", "z" * 6000),
            wire("role", None, messages=[{"role": "tool", "content": "x"}]),
            wire("last"),
        ],
    )
    run = run_worker(engine, chat, [make_probe(chat)], path)
    found = {k: (r["status"], r["reason"]) for k, r in rows(engine).items() if k != "None"}
    nameless = sorted((r["status"], r["reason"]) for r in stored(engine, schema.messages) if r["message_id"] is None)
    assert found == {
        "plain": ("scored", None),
        "chat": ("scored", None),
        "empty": ("skipped", "nothing readable: every content is empty"),
        "nan": ("scored", None),
        "deep": ("scored", None),
        "odd": ("scored", None),
        "long": ("truncated", None),
        "role": ("scored", None),
        "last": ("scored", None),
    }
    assert nameless == [
        ("invalid", "payload: not JSON at character 1"),
        ("invalid", "payload: not UTF-8"),
        ("skipped", f"{len(json.dumps(wire('big', 'z' * 6000)))} bytes, over max_message_bytes"),
    ]
    assert run.tally.by_status == {"scored": 7, "invalid": 2, "truncated": 1, "skipped": 2}
    assert run.tally.messages == 12
    with engine.connect() as connection:
        assert status_counts(connection, "stream") == run.tally.by_status
    scored = {(r["offset"]) for r in stored(engine, schema.scores)}
    assert scored == {r["offset"] for r in stored(engine, schema.messages) if r["status"] in ("scored", "truncated")}
    # Cut in steps of an eighth.
    assert MAX_TOKENS - MAX_TOKENS // 8 < rows(engine)["long"]["tokens"] <= MAX_TOKENS


def test_scores_are_those_of_the_probe_alone(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    """Batched, padded and shuffled by length, each message keeps its own score."""
    probe = make_probe(chat)
    run_worker(engine, chat, [probe], traffic(tmp_path / "t"))
    found = [r["score"] for r in stored(engine, schema.scores)]
    assert found == pytest.approx(scores_of(chat, probe, PROMPTS), abs=1e-4)


def test_flagged_is_above_the_threshold_and_alerts(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    scores = scores_of(chat, make_probe(chat), PROMPTS)
    threshold = sorted(scores)[8] + 1e-3
    run = run_worker(engine, chat, [make_probe(chat, threshold=threshold)], traffic(tmp_path / "t"))
    flagged = {r["offset"] for r in stored(engine, schema.scores) if r["flagged"]}
    offsets = [r["offset"] for r in stored(engine, schema.messages)]
    assert flagged == {offsets[n] for n, s in enumerate(scores) if s > threshold}
    assert len(flagged) == 3
    (alert,) = stored(engine, schema.alerts)
    assert (alert["count"], alert["tenant"], alert["dedup_key"]) == (3, "shop", "threshold:drift:shop:tiny")
    assert alert["top_score"] == pytest.approx(max(scores), abs=1e-4)
    assert (run.tally.flagged, run.tally.alerts) == (3, 1)
    assert [o.event for o in run.opened][:1] == ["alert.opened"]


def test_the_same_file_twice_adds_nothing(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    path = lines(
        tmp_path / "t", [*(wire(f"m{n}", p) for n, p in enumerate(PROMPTS)), b"{broken", wire("long", "y" * 300)]
    )
    probe = make_probe(chat, threshold=-1e6)
    first = run_worker(engine, chat, [probe], path, over_long="skip")
    # Each worker says that it was there.
    before, held = counts(engine), dump(engine, without=("workers",))
    again = run_worker(engine, chat, [probe], path, over_long="skip")
    assert (first.tally.known, again.tally.known, again.tally.messages) == (0, 14, 14)
    assert (again.opened, again.tally.tokens, again.tally.alerts) == ([], 0, 0)
    assert counts(engine) == before
    assert dump(engine, without=("workers",)) == held
    assert before["scores"] == 12
    assert before["alerts"] == 1


def test_another_probe_later_scores_what_is_known(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    path = traffic(tmp_path / "t")
    first, second = make_probe(chat, threshold=-1e6), make_probe(chat, "second", sites=["final"], threshold=-1e6)
    run_worker(engine, chat, [first], path)
    run = run_worker(engine, chat, [first, second], path)
    assert run.tally.known == 0
    # What was scored again counts no second time.
    assert {a["probe"]: a["count"] for a in stored(engine, schema.alerts)} == {"drift": 12, "second": 12}
    assert counts(engine)["messages"] == 12
    assert counts(engine)["scores"] == 24


def test_another_card_of_the_same_name_scores_again(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    """Even of the same version: what decides a score or a flag is what a probe is."""
    path = traffic(tmp_path / "t")
    first, second = make_probe(chat, threshold=1e6), make_probe(chat, threshold=-1e6)
    assert (first.name, first.card.version) == (second.name, second.card.version)
    run_worker(engine, chat, [first], path)
    assert run_worker(engine, chat, [first], path).tally.known == 12
    assert run_worker(engine, chat, [second], path).tally.known == 0
    assert run_worker(engine, chat, [second], path).tally.known == 12
    rows = stored(engine, schema.scores)
    assert {(r["probe_digest"], r["flagged"]) for r in rows} == {(first.digest, False), (second.digest, True)}
    assert len(rows) == 24
    assert [a["count"] for a in stored(engine, schema.alerts)] == [12]


@pytest.mark.parametrize("shadow", [False, True])
def test_scores_from_before_digests_alert_nobody_again(
    engine: Engine, chat: ChatModel, tmp_path: Path, shadow: bool
) -> None:
    """As the settings have it: live they are the probe's own, in shadow and in a replay the messages score again."""
    path = traffic(tmp_path / "t")
    probe, second = make_probe(chat, threshold=-1e6), make_probe(chat, "second", sites=["final"])
    run_worker(engine, chat, [probe], path)
    with engine.begin() as connection:
        connection.execute(text("UPDATE scores SET probe_digest = ''"))
    before = stored(engine, schema.alerts)
    settings = Settings(shadow=("drift",) if shadow else ())
    probes = [probe, second]
    by = policy_of(settings, [probe], chat).scored_by
    policy: dict[str, Any] = {"scored_by": by, "shadow": frozenset(settings.shadow)}
    assert run_worker(engine, chat, [probe], path, **policy).tally.known == (0 if shadow else 12)
    assert stored(engine, schema.alerts) == before
    # Nor where another probe makes the message be read again.
    policy["scored_by"] = policy_of(settings, probes, chat).scored_by
    assert run_worker(engine, chat, probes, path, **policy).tally.known == 0
    assert [a for a in stored(engine, schema.alerts) if a["probe"] == "drift"] == before
    digests = {r["probe_digest"] for r in stored(engine, schema.scores) if r["probe"] == "drift"}
    assert digests == ({"", probe.digest} if shadow else {""})


def test_a_longer_file_continues(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    path = traffic(tmp_path / "t")
    probe = make_probe(chat, threshold=-1e6)
    run_worker(engine, chat, [probe], path)
    with path.open("ab") as file:
        file.write(json.dumps(wire("new", tenant="shop")).encode() + b"\n")
    run = run_worker(engine, chat, [probe], path)
    assert (run.tally.known, run.tally.by_status, run.tally.alerts) == (12, {"scored": 1}, 0)
    assert [a["count"] for a in stored(engine, schema.alerts)] == [13]


def test_another_file_of_the_same_name_is_watched(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    """Other content at known offsets is another log: scored, alerted, and told by its source name."""
    probe = make_probe(chat, threshold=-1e6)
    run_worker(engine, chat, [probe], lines(tmp_path / "t", [wire("old1", "aaaa"), wire("old2", "bbbb")]))
    path = lines(tmp_path / "t", [wire("new1", "cccc"), wire("new2", "dddd")])
    verdicts = tmp_path / "verdicts"
    run = run_worker(engine, chat, [probe], path, verdicts=verdicts)
    assert {k: (r["status"], r["source"]) for k, r in rows(engine).items()} == {
        "old1": ("scored", "stream"),
        "old2": ("scored", "stream"),
        "new1": ("scored", "stream@2"),
        "new2": ("scored", "stream@2"),
    }
    assert counts(engine)["scores"] == 4
    assert [a["count"] for a in stored(engine, schema.alerts)] == [4]
    said = [json.loads(line) for line in verdicts.read_text().splitlines()]
    assert [(s["id"], s["source"], s["decision"]) for s in said] == [
        ("new1", "stream@2", "flag"),
        ("new2", "stream@2", "flag"),
    ]
    assert run.tally.by_status == {"scored": 2}
    again = run_worker(engine, chat, [probe], path)
    assert (again.tally.known, counts(engine)["messages"]) == (2, 4)


def test_a_conflict_is_no_flag(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    """Where nothing tells two logs apart, the later payload fails, and what goes out says so."""
    probe = make_probe(chat, threshold=-1e6)

    def unnamed(poll: Any) -> Any:
        def polling(self: JsonLines, limit: int, wait_seconds: float) -> list[Record]:
            return [replace(record, log=None) for record in poll(self, limit, wait_seconds)]

        return polling

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(JsonLines, "poll", unnamed(JsonLines.poll))
        run_worker(engine, chat, [probe], lines(tmp_path / "t", [wire("old1", "aaaa"), wire("old2", "bbbb")]))
        before = counts(engine)
        path, verdicts = lines(tmp_path / "t", [wire("new1", "cccc"), wire("new2", "dddd")]), tmp_path / "verdicts"
        run = run_worker(engine, chat, [probe], path, verdicts=verdicts)
    assert {k: (r["status"], r["reason"]) for k, r in rows(engine).items() if "new" in k} == {
        "new1": ("failed", CONFLICT),
        "new2": ("failed", CONFLICT),
    }
    assert counts(engine) == before | {"messages": 4}
    said = [json.loads(line) for line in verdicts.read_text().splitlines()]
    assert [(s["status"], s["decision"], s["scores"]) for s in said] == [("failed", "unscored", {})] * 2
    assert run.opened == []


def test_a_message_that_breaks_the_model_stands_alone(
    engine: Engine, chat: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = list(PROMPTS)
    prompts[5] = "BREAKS"
    path = lines(tmp_path / "t", [wire(f"m{n}", p) for n, p in enumerate(prompts)])
    sizes = breaking(monkeypatch, chat, "BREAKS", CANARY)
    run_worker(engine, chat, [make_probe(chat)], path, batch_messages=12)
    assert max(sizes) > 1
    found = rows(engine)
    assert (found["m5"]["status"], found["m5"]["reason"]) == ("failed", "scoring failed: RuntimeError")
    assert {k for k, r in found.items() if r["status"] == "scored"} == {f"m{n}" for n in range(12) if n != 5}
    assert counts(engine)["scores"] == 11


def test_what_failed_is_mended_by_a_later_run(
    engine: Engine, chat: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lines(tmp_path / "t", [wire("good"), wire("bad", "BREAKS")])
    probe = make_probe(chat, threshold=-1e6)
    with monkeypatch.context() as patch:
        breaking(patch, chat, "BREAKS")
        run_worker(engine, chat, [probe], path)
    assert rows(engine)["bad"]["status"] == "failed"
    run = run_worker(engine, chat, [probe], path)
    assert run.tally.known == 1
    assert (rows(engine)["bad"]["status"], rows(engine)["bad"]["reason"]) == ("scored", None)
    assert counts(engine)["scores"] == 2
    assert [a["count"] for a in stored(engine, schema.alerts)] == [2]


@pytest.mark.parametrize(("over_long", "status"), [("truncate_left", "truncated"), ("skip", "skipped")])
def test_over_long_messages(engine: Engine, chat: ChatModel, tmp_path: Path, over_long: str, status: str) -> None:
    path = lines(tmp_path / "t", [wire("long", "y" * 300), wire("short")])
    run_worker(engine, chat, [make_probe(chat)], path, over_long=over_long)
    found = rows(engine)
    assert (found["long"]["status"], found["short"]["status"]) == (status, "scored")
    assert counts(engine)["scores"] == (2 if status == "truncated" else 1)
    if status == "skipped":
        assert found["long"]["reason"] == f"longer than max_tokens={MAX_TOKENS} (over_long=skip)"


def test_a_probe_of_responses_on_a_message_without_one(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    probe = make_probe(chat, "replies", aggregation="mean(response)")
    path = lines(tmp_path / "t", [wire("without"), wire("empty", response=""), wire("with", response="an answer")])
    run_worker(engine, chat, [probe], path)
    found = rows(engine)
    reason = "replies reads responses and the message has none"
    assert {k: (r["status"], r["reason"]) for k, r in found.items()} == {
        "without": ("skipped", reason),
        "empty": ("skipped", reason),
        "with": ("scored", None),
    }
    assert [r["offset"] for r in stored(engine, schema.scores)] == [found["with"]["offset"]]


def test_two_probes_of_which_one_reads_responses(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    probes = [make_probe(chat), make_probe(chat, "replies", aggregation="last_response")]
    run_worker(engine, chat, probes, lines(tmp_path / "t", [wire("without"), wire("with", response="an answer")]))
    found = rows(engine)
    assert (found["without"]["status"], found["with"]["reason"]) == ("scored", None)
    assert found["without"]["reason"] == "replies reads responses and the message has none"
    assert [r["probe"] for r in stored(engine, schema.scores)] == ["drift", "drift", "replies"]


def test_scores_of_heads_are_stored(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    probe = make_probe(chat, "heads", sites=["head[1,2]", "head[2,0]"])
    run_worker(engine, chat, [probe], lines(tmp_path / "t", [wire("m")]))
    heads = heads_of(engine)
    assert [(r["layer"], r["head"]) for r in heads] == [(1, 2), (2, 0)]
    (total,) = stored(engine, schema.scores)
    assert sum(r["score"] for r in heads) / 2 == pytest.approx(total["score"], abs=1e-5)


def test_a_head_probe_and_a_residual_probe_side_by_side(
    engine: Engine, chat: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each scores as it does alone, and nothing is read but what the two need."""
    seen: set[str] = set()

    def spied(layout: Any, observers: dict[Any, Any]) -> Any:
        seen.update(map(str, observers))
        return observing(layout, observers)

    monkeypatch.setattr("probes.projection.observing", spied)
    residual = make_probe(chat, threshold=-1e6)
    heads = make_probe(chat, "heads", sites=["head[1,2]", "head[2,0]"], threshold=-1e6)
    messages = [wire(f"m{i}", f"question {i}") for i in range(5)]
    run_worker(engine, chat, [residual, heads], lines(tmp_path / "t", messages))
    together = {(r["probe"], r["offset"]): r["score"] for r in stored(engine, schema.scores)}
    offsets = sorted({offset for _, offset in together})
    assert len(together) == 10
    assert {(r["probe"], r["layer"], r["head"]) for r in heads_of(engine)} == {
        ("heads", 1, 2),
        ("heads", 2, 0),
    }
    assert seen == {"residual[1]", "head[1,-1]", "head[2,-1]"}
    for probe in (residual, heads):
        alone = score_all(chat, [encode(chat, user(f"question {i}")) for i in range(5)], [probe.reader])[:, 0]
        assert [together[probe.name, offset] for offset in offsets] == pytest.approx(alone.tolist(), abs=1e-5)
    assert hook_count(chat.model) == 0


def test_a_score_that_is_not_finite_is_a_failure(
    engine: Engine, chat: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Projection.__call__

    def overflow(self: Projection, *given: Any, **more: Any) -> torch.Tensor:
        return forward(self, *given, **more) * float("inf")

    monkeypatch.setattr(Projection, "__call__", overflow)
    run_worker(engine, chat, [make_probe(chat, threshold=-1e6)], lines(tmp_path / "t", [wire("m")]))
    assert rows(engine)["m"]["status"] == "failed"
    assert "no finite score" in rows(engine)["m"]["reason"]
    assert counts(engine)["scores"] == counts(engine)["alerts"] == 0


def test_a_shadow_probe_scores_and_pages_nobody(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    probes = [make_probe(chat, threshold=-1e6), make_probe(chat, "quiet", threshold=-1e6)]
    path = traffic(tmp_path / "t")
    run = run_worker(engine, chat, probes, path, shadow=frozenset({"quiet"}))
    assert {(r["probe"], r["flagged"]) for r in stored(engine, schema.scores)} == {("drift", True), ("quiet", True)}
    assert {a["probe"] for a in stored(engine, schema.alerts)} == {"drift"}
    assert {o["body"]["data"]["probe"] for o in stored(engine, schema.outbox)} == {"drift"}
    assert run.tally.flagged == 12


@pytest.mark.parametrize("privacy", ["none", "sha256", "full"])
def test_privacy_stores_what_it_says(engine: Engine, chat: ChatModel, tmp_path: Path, privacy: str) -> None:
    probe = make_probe(chat, threshold=-1e6, recipe="ablate")
    path = lines(tmp_path / "t", [wire("m", CANARY, response=f"{CANARY} too", tenant="shop")])
    run_worker(
        engine,
        chat,
        [probe],
        path,
        privacy=privacy,
        mitigate="all",
        answers=tmp_path / "answers",
        also_plain=True,
    )
    (row,) = stored(engine, schema.messages)
    turns = {"messages": [{"role": "user", "content": CANARY}], "response": f"{CANARY} too"}
    digest = hashlib.sha256(json.dumps(turns, sort_keys=True).encode()).hexdigest()
    assert row["text"] == (turns if privacy == "full" else None)
    assert row["text_sha256"] == (None if privacy == "none" else digest)
    answers = stored(engine, schema.answers)
    assert {a["kind"] for a in answers} == {"plain", "mitigated"}
    assert all((a["text"] is not None) == (privacy == "full") for a in answers)
    assert all((a["text_sha256"] is None) == (privacy == "none") for a in answers)
    assert (CANARY in dump(engine)) == (privacy == "full")


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("mitigate", ["off", "flagged", "all"])
def test_mitigated_answers(engine: Engine, chat: ChatModel, tmp_path: Path, mitigate: str) -> None:
    prompts = PROMPTS[:6]
    scores = scores_of(chat, make_probe(chat), prompts)
    probe = make_probe(chat, threshold=sorted(scores)[3] + 1e-3, recipe="ablate")
    path = lines(tmp_path / "t", [*(wire(f"m{n}", p) for n, p in enumerate(prompts)), b"{broken"])
    out = tmp_path / "answers"
    run_worker(engine, chat, [probe], path, mitigate=mitigate, answers=out, also_plain=mitigate == "all")
    flagged = {f"m{n}" for n, s in enumerate(scores) if s > probe.card.threshold}
    assert len(flagged) == 2
    expected = {"off": set(), "flagged": flagged, "all": {f"m{n}" for n in range(6)}}[mitigate]
    answers = written(out)
    assert {a["id"] for a in answers} == expected
    assert len(answers) == len(expected)
    offsets = {k: r["offset"] for k, r in rows(engine).items()}
    for one in answers:
        assert one["offset"] == offsets[one["id"]]
        assert (one["source"], one["partition"]) == ("stream", 0)
        assert one["recipe"] == "drift: ablate x1 at residual[1], positions all"
        assert one["flagged"] == (one["id"] in flagged)
        assert one["scores"]["drift"] == pytest.approx(scores[int(one["id"][1:])], abs=1e-4)
        assert ("plain" in one) == (mitigate == "all")
    kinds = [a["kind"] for a in stored(engine, schema.answers)]
    assert kinds.count("mitigated") == len(expected)
    assert kinds.count("plain") == (len(expected) if mitigate == "all" else 0)


def test_mitigation_changes_the_answer_and_leaves_the_model_as_it_was(
    engine: Engine, chat: ChatModel, tmp_path: Path
) -> None:
    probe = make_probe(chat, threshold=-1e6, recipe="ablate")
    before = scores_of(chat, probe, PROMPTS[:3])
    out = tmp_path / "answers"
    run_worker(engine, chat, [probe], traffic(tmp_path / "t"), mitigate="all", answers=out, also_plain=True)
    assert any(a["mitigated"] != a["plain"] for a in written(out))
    assert scores_of(chat, probe, PROMPTS[:3]) == before


def test_no_prompt_text_leaves_the_worker(
    engine: Engine, chat: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Good, bad, breaking, flagged and refused messages: their text is in no table, log, output or error."""
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    logs.configure()
    turns = [{"role": "tool", "content": CANARY}]
    path = lines(
        tmp_path / "t",
        [
            wire("good", f"{CANARY} hello", response=f"{CANARY} reply"),
            wire("breaks", f"{CANARY} BREAKS"),
            wire("refused", None, messages=turns),
            wire("surrogate", f"{CANARY} \ud800"),
            wire("long", CANARY * 40),
            wire("big", CANARY * 1000),
            wire("both", CANARY, messages=turns),
            wire("nan", CANARY, timestamp=float("nan")),
            f'{{"id": "x", "prompt": "{CANARY}'.encode(),
            f'"{CANARY}"'.encode(),
            wire("type", [CANARY]),  # type: ignore[arg-type]
        ],
    )
    breaking(monkeypatch, chat, "BREAKS", CANARY)
    probe = make_probe(chat, threshold=-1e6)
    with progress.reporting(Settings(logs="json"), "bytes") as report:
        run = run_worker(engine, chat, [probe], path)
        report(run.tally, run.opened, 0)
        logs.logger().warning("careless", prompt=CANARY, text=CANARY, exc_info=ValueError(CANARY))
    assert sum(run.tally.by_status.values()) == 11
    assert run.opened
    assert CANARY not in dump(engine)
    out = capfd.readouterr()
    for said in (out.out, out.err, err.getvalue()):
        assert CANARY not in said
    assert [json.loads(line)["event"] for line in err.getvalue().splitlines()] == [
        "alert.opened",
        "progress",
        "careless",
    ]


class Endless:
    """A source that never ends and remembers what was committed."""

    name, lag_unit, lag = "endless", "records", None
    oldest = trouble = None
    finished = False

    @property
    def waiting(self) -> dict[str | None, Waiting]:
        return {}

    def __init__(self) -> None:
        self.given: list[Record] = []
        self.committed: list[Record] = []

    def poll(self, limit: int, _wait: float) -> list[Record]:
        fresh = []
        for n in range(len(self.given), len(self.given) + limit):
            payload = json.dumps(wire(f"m{n}")).encode()
            fresh.append(Record(Coordinates(self.name, 0, n), payload, len(payload)))
        self.given += fresh
        return fresh

    def commit(self, records: Sequence[Record]) -> None:
        self.committed += records

    def close(self) -> None:
        return None


def endless_worker(engine: Engine, chat: ChatModel, **more: Any) -> tuple[Worker, Endless]:
    source = Endless()
    scorer = BatchScorer(chat, [make_probe(chat)], token_budget=256, max_tokens=MAX_TOKENS, skip_over_long=False)
    return Worker(source, scorer, engine, Policy(("drift",), "tiny", batch_messages=4), **more), source


def test_stop_finishes_the_batches_in_hand(engine: Engine, chat: ChatModel) -> None:
    calls = 0

    def on_batch(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            worker.stop()

    worker, source = endless_worker(engine, chat, on_batch=on_batch)
    tally = worker.run()
    # The next batches may have been taken while the second was written; what was not scored stays where it came from.
    assert 8 <= tally.messages == len(source.committed) <= 16
    assert source.committed == source.given[: tally.messages]
    assert len(source.given) - tally.messages <= 8
    assert counts(engine)["messages"] == tally.messages


def test_nothing_is_committed_that_the_database_did_not_take(
    engine: Engine, chat: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_RETRY_SECONDS", ())
    own = connect(url_of(engine))
    worker, source = endless_worker(own, chat)
    own.dispose()
    monkeypatch.setattr(own, "begin", engine_that_fails(own))
    with pytest.raises(DatabaseUnavailableError, match="nothing of this batch was committed"):
        worker.run()
    assert source.given
    assert source.committed == []
    assert counts(engine)["messages"] == 0


def engine_that_fails(engine: Engine) -> Any:
    from sqlalchemy.exc import OperationalError

    def begin() -> Any:
        raise OperationalError("BEGIN", None, ConnectionError("gone"))

    del engine
    return begin


def test_a_lost_connection_in_the_middle_is_survived(
    engine: Engine, chat: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection dies once inside the writing transaction: the batch is written once, alerts count once."""
    monkeypatch.setattr(database, "_RETRY_SECONDS", (0.01, 0.01, 0.01))
    from sqlalchemy import text

    lost: list[int] = []

    def losing(connection: Any, batch: Any, known: Any) -> Any:
        found = write_batch(connection, batch, known)
        if not lost:
            lost.append(1)
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return found

    monkeypatch.setattr("monitor.service.worker.write_batch", losing)
    run = run_worker(engine, chat, [make_probe(chat, threshold=-1e6)], traffic(tmp_path / "t"))
    assert lost
    assert (run.tally.messages, counts(engine)["messages"], counts(engine)["scores"]) == (12, 12, 12)
    assert [a["count"] for a in stored(engine, schema.alerts)] == [12]


def test_scores_of_probes_in_shadow_are_marked(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    path = lines(tmp_path / "t", [wire("m1")])
    probes = [make_probe(chat, "loud", threshold=-1e6), make_probe(chat, "quiet", threshold=-1e6)]
    run_worker(engine, chat, probes, path, shadow=frozenset({"quiet"}))
    assert {row["probe"]: row["shadow"] for row in stored(engine, schema.scores)} == {"loud": None, "quiet": True}
    assert [r.probe for r in all_alerts(engine)] == ["loud"]


def test_alerts_of_rules_in_shadow_are_counted_as_would_alert(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    path = lines(tmp_path / "t", [wire("m1", tenant="a"), wire("m2", tenant="b"), wire("m3", tenant="a")])
    probe = make_probe(chat, "shadowed-rule", threshold=-1e6)
    shadowed = rules('[[threshold]]\nshadow = true\nseverity = "error"\nper = "tenant"').threshold
    run_worker(engine, chat, [probe], path, rules=shadowed)
    assert all_alerts(engine) == []
    counted = metrics.ALERTS.labels("shadowed-rule", "error", "would_alert")
    assert counted._value.get() == 2
