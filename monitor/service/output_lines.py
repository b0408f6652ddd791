"""The lines that a worker writes of a message: verdicts, mitigated replies, dead letters.

Contract: pure functions, and `write_lines`, which returns once all lines of a batch are written out. No prompt text
gets into a verdict or a dead letter; a mitigated reply is text of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from monitor.service.batch_rows import ProcessedMessage
from monitor.stream.sinks import Line, Outputs, Sink
from monitor.telemetry import metrics


def write_lines(outputs: Outputs, batch: Sequence[ProcessedMessage]) -> None:
    """All lines of a batch, to the outputs that there are."""
    with metrics.stage("output"):
        _write(outputs.verdicts, map(verdict_line, batch))
        _write(outputs.answers, (answer_line(each) for each in batch if each.mitigation is not None))
        _write(outputs.dead_letters, map(dead_letter_line, filter(is_dead_letter, batch)))


def _write(sink: Sink | None, lines: Iterable[Line]) -> None:
    if sink is not None:
        sink.write(list(lines))


def verdict_line(processed: ProcessedMessage) -> Line:
    """Ids, scores and the decision: `flag`, `pass`, `partial` (not read whole), or `unscored` (fail open); by probe,
    what decided its score, what its turns say together, and whether a judge is asked, whose verdict comes later; the
    share of the text that is unreadable, if not 0."""
    partial = {"partial": list(processed.partial)} if processed.partial else {}
    value = {
        "status": processed.status,
        "decision": processed.decision,
        **partial,
        **_scores(processed),
        **_decided(processed),
    }
    return _line(processed, value)


def answer_line(processed: ProcessedMessage) -> Line:
    """The mitigated reply, and the plain one where it was asked for."""
    mitigation = processed.mitigation
    assert mitigation is not None  # noqa: S101 - only called for records that have one
    value = {
        **_scores(processed),
        "flagged": processed.flagged,
        "recipe": mitigation.recipe,
        "mitigated": mitigation.mitigated.text,
    }
    return _line(processed, value | ({"plain": mitigation.plain.text} if mitigation.plain is not None else {}))


def dead_letter_line(processed: ProcessedMessage) -> Line:
    """Coordinates of the message, whose it is, and why it could not be scored; the payload is not copied."""
    record, parsed = processed.record, processed.parsed
    value: dict[str, object] = {
        "status": processed.status,
        "reason": processed.reason,
        "tenant": parsed.tenant,
        "user": parsed.user,
        "model": parsed.model,
        "format": parsed.format,
        "payload_sha256": processed.sha256,
        "size": record.size,
        "recorded_at": record.recorded.isoformat() if record.recorded else None,
    }
    headers = (
        ("awry_original_topic", record.at.source.encode("utf-8", "replace")),
        ("awry_original_partition", str(record.at.partition).encode()),
        ("awry_original_offset", str(record.at.offset).encode()),
        ("awry_status", processed.status.encode()),
        ("awry_error", _error_class(processed).encode("utf-8", "replace")),
    )
    return _line(processed, value, headers)


def is_dead_letter(processed: ProcessedMessage) -> bool:
    """Whether a human has to look: it is not a valid message, or scoring it failed."""
    return processed.status in ("invalid", "failed")


def _line(processed: ProcessedMessage, value: dict[str, object], headers: Sequence[tuple[str, bytes]] = ()) -> Line:
    at = processed.at
    identity = {"id": processed.message_id, "source": at.source, "partition": at.partition, "offset": at.offset}
    if at.sub:
        identity["sub"] = at.sub
    traces = tuple((name, raw) for name, raw in processed.record.headers if name == "traceparent" and raw is not None)
    return Line(identity | value, processed.message_id, (*headers, *traces))


def _scores(processed: ProcessedMessage) -> dict[str, object]:
    return {"scores": {s.probe.name: round(s.score, 6) for s in processed.scores}}


def _decided(processed: ProcessedMessage) -> dict[str, object]:
    """Only what there is: a plain message of one turn has none of it."""
    found: dict[str, dict[str, object]] = {}
    for each in processed.scores:
        path = each.trajectory
        named: dict[str, object] = {"reading": each.reading, "judge": each.judge}
        if path is not None:
            named |= {"turn": each.top_turn, "turn_new": each.turn_new}
            named |= {"trajectory": round(path.level, 6), "path_length": round(path.path_length, 6)}
        for name, value in named.items():
            if value is not None:
                found.setdefault(name, {})[each.probe.name] = value
    unreadable = processed.outcome.unreadable if processed.outcome is not None else None
    return {**found, **({"unreadable": round(unreadable, 4)} if unreadable else {})}


def _error_class(processed: ProcessedMessage) -> str:
    """`RuntimeError` of `scoring failed: RuntimeError`, or what a row was refused by; of an invalid message, the field
    that is wrong."""
    reason = processed.reason or ""
    return reason.rpartition(": ")[2] if processed.status == "failed" else reason.partition(":")[0]
