"""`awry messages`: messages of the stream, found by any name, and single ones."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from monitor.cli import options as o
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from monitor.settings import Settings
    from monitor.stream.kafka.client import Cluster
    from storage.coordinates import Coordinates
    from storage.queries.messages import MessageDetail

commands = Commands("Messages of the stream: find some, look at one.")


@commands.command("list")
def list_messages(
    message_id: o.MessageIdName = None,
    user: o.UserName = None,
    tenant: o.TenantName = None,
    conversation: o.ConversationName = None,
    status: o.MessageStatus = None,
    probe: o.ProbeFilter = None,
    score_from: o.ScoreFrom = None,
    score_to: o.ScoreTo = None,
    flagged: o.FlaggedFilter = None,
    since: o.SinceTime = None,
    until: o.UntilTime = None,
    limit: o.Limit = 50,
    cursor: o.Cursor = None,
    as_json: o.Json = False,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """List messages, the latest first: all, or those that match every option. Without their text.

    Times are those at which awry stored a message, or its score where one is asked for. Where there are more, the last
    line says with which --cursor the same command goes on.
    """
    from monitor.cli.inputs import filled, moment_of, reading
    from monitor.cli.render.messages import print_messages
    from monitor.errors import SettingsError
    from monitor.web.api.message_pages import message_page
    from monitor.web.api.pagination import CursorError
    from storage.queries.search import Filters
    from storage.schema import STATUSES

    if status is not None and status not in STATUSES:
        raise SettingsError(f"status: {status!r} is none of {', '.join(STATUSES)}")
    names = {"id": message_id, "user": user, "tenant": tenant, "conversation": conversation, "probe": probe}
    filled(**names, cursor=cursor)
    for name, number in (("score-from", score_from), ("score-to", score_to)):
        if number is not None and not math.isfinite(number):
            raise SettingsError(f"{name}: write a number of class gaps, such as 0.8")
    filters = Filters(
        message_id=message_id,
        user=user,
        tenant=tenant,
        conversation=conversation,
        status=status,
        since=moment_of("since", since),
        until=moment_of("until", until),
        probe=probe,
        score_from=score_from,
        score_to=score_to,
        flagged=flagged,
    )
    written = {"status": status, "since": since, "until": until, "score_from": score_from, "score_to": score_to}
    given = {n: str(v) for n, v in {**names, **written, "flagged": flagged}.items() if v is not None}
    with reading(database_url, state_dir) as connection:
        try:
            found, after = message_page(connection, filters, limit, cursor, given=given)
        except CursorError:
            raise SettingsError("cursor: give the one that the list ended with, and the same other options") from None
    if as_json:
        print_json([{**each.message, "scores": each.scores} for each in found])
    else:
        print_messages(found)
    if after is not None:
        say(f"there are more: the same command with --cursor {after}")


@commands.command()
def show(
    coordinates: o.Coordinates,
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Print one message: its text on standard output, its time and what else is known on standard error.

    The text comes from the tables where it is stored (privacy full), and that it was read is recorded there. Else the
    record comes from its topic, as long as that keeps it. Of a reading, which holds no text, it is that of the same
    message (its id) from elsewhere, such as a gateway's log.
    """
    from monitor.settings import load_settings

    at = _place(coordinates)
    settings = load_settings(database_url=database_url, state_dir=state_dir)
    with _tables(settings) as engine:
        detail, stream, log = _known(engine, at) if engine is not None else (None, at.source, None)
        if engine is not None and detail is None:
            _refuse_erased(engine, at)
        if detail is not None and engine is not None and detail.message["format"] == "reading":
            at = _gateways(engine, at, detail)
            detail, stream, log = _known(engine, at)
        if detail is not None and engine is not None and detail.message["text"] is not None:
            _show_stored(engine, at, detail, actor)
            return
    if detail is not None:
        say(f"{at} is known, {detail.message['status']}; its text is not stored")
    _show_record(settings, at, stream, log, detail)


def _place(text: str) -> Coordinates:
    from monitor.errors import SourceError
    from monitor.web.api.evidence import parse_place

    try:
        return parse_place(text)
    except ValueError as error:
        raise SourceError(
            f"coordinates: {text} is not TOPIC/PARTITION/OFFSET, for example traffic/3/1204 or traffic/3/1204.7 "
            f"({error})"
        ) from None


@contextmanager
def _tables(settings: Settings) -> Iterator[Engine | None]:
    """The database, or None where there is none: whoever has the stream only is to see its records."""
    from monitor.cli.inputs import opened_by
    from storage.errors import StorageError

    if settings.database_url is None and not (settings.state_dir / "postgres").is_dir():
        yield None
        return
    with ExitStack() as stack:
        engine = None
        try:
            engine = stack.enter_context(opened_by(settings))
        except StorageError as error:
            say(f"{error}; asking the stream alone")
        yield engine


def _known(engine: Engine, at: Coordinates) -> tuple[MessageDetail | None, str, str | None]:
    """What the tables hold of a message, and which stream and log its source name stands for."""
    from sqlalchemy import select

    from monitor.web.api.evidence import message_at
    from storage.schema import sources

    with engine.connect() as connection:
        detail = message_at(connection, at)
        row = connection.execute(select(sources).where(sources.c.name == at.source)).one_or_none()
    return (detail, row.stream, row.log) if row is not None else (detail, at.source, None)


def _gateways(engine: Engine, at: Coordinates, detail: MessageDetail) -> Coordinates:
    """Where the message of a reading is with its text. SourceError where it is nowhere."""
    from monitor.errors import SourceError
    from storage.coordinates import Coordinates
    from storage.queries.messages import same_message_elsewhere

    row = detail.message
    with engine.connect() as connection:
        found = same_message_elsewhere(connection, row)
    for name in ("message_id", "tenant", "user_id", "model", "conversation_id", "trace_id", "reason"):
        if row[name] is not None:
            say(f"{name}: {row[name]!r}")
    for note in row["notes"] or ():
        say(f"note: {note}")
    if found is None:
        raise SourceError(
            f"coordinates: {at} is a reading that a serving engine made, {row['status']}; it holds no text, and no "
            "message of its id is stored from elsewhere"
        )
    there = Coordinates(found["source"], found["partition"], found["offset"], found["sub"])
    say(f"{at} is a reading that a serving engine made, {row['status']}; the message with its text is {there}")
    return there


def _refuse_erased(engine: Engine, at: Coordinates) -> None:
    from monitor.errors import SourceError
    from storage.queries.messages import is_erased

    with engine.connect() as connection:
        if is_erased(connection, at):
            raise SourceError(f"coordinates: the message {at} was erased; its source may still have it")


def _show_stored(engine: Engine, at: Coordinates, detail: MessageDetail, actor: str | None) -> None:
    from sqlalchemy.exc import DBAPIError

    from monitor.cli.inputs import actor_of
    from monitor.cli.render.tables import utc
    from monitor.errors import SourceError
    from monitor.web.api.evidence import record_reading

    try:
        record_reading(engine, actor_of(actor), at)
    except DBAPIError:
        raise SourceError(
            f"coordinates: the text of {at} is stored, and is not shown: the database refuses to record who reads it"
        ) from None
    row = detail.message
    sent = row["sent_at"]
    when = f"sent {sent if isinstance(sent, str) else utc(sent)}" if sent else f"ingested {utc(row['ingested_at'])}"
    say(f"{at}, {when}, {row['status']}, as it is stored")
    for name in ("message_id", "tenant", "user_id", "model", "conversation_id", "trace_id", "format", "rendered"):
        if row[name] is not None:
            say(f"{name}: {row[name]!r}")
    for note in row["notes"] or ():
        say(f"note: {note}")
    if detail.others:
        say(f"{len(detail.others)} other payloads came at these coordinates; none of them was scored")
    print_json(row["text"])


def _show_record(
    settings: Settings, at: Coordinates, stream: str, log: str | None, detail: MessageDetail | None
) -> None:
    from monitor.errors import SourceError
    from monitor.stream.kafka.lookup import fetch_record
    from monitor.stream.kafka.start_offset import timestamp_of
    from monitor.stream.wiring import cluster_of

    if log is not None and not _is_topic_id(log):
        raise SourceError(
            f"coordinates: {at} is of a file that awry read as {stream}; its text is not in the tables, it is the line "
            f"at byte {at.offset} of that file"
        )
    cluster = cluster_of(settings)
    now = _topic_id(cluster, stream) if log is not None else None
    if now is not None and now != log:
        raise SourceError(
            f"coordinates: {at} was in a topic {stream} that is gone: its id was {log}, that of the topic of this "
            f"name is {now}"
        )
    record = fetch_record(cluster, replace(at, source=stream))
    when = timestamp_of(record.timestamp)
    say(f"{at}, {f'{when:%Y-%m-%d %H:%M:%S} UTC' if when else 'no time'}, key {record.key!r}")
    if at.sub:
        say(f"this is the whole record; message {at.sub} of it, counted from 0, is the one asked for")
    if detail is not None and detail.message["status"] != "skipped" and not _is_of(detail, record.value):
        say("the record there is another one than the one that is stored: was the topic made again, or its end lost?")
    for name, value in record.headers or ():
        say(f"{name}: {value!r}")
    try:
        typer.echo(json.dumps(json.loads(record.value or b""), indent=2, ensure_ascii=False))
    except ValueError:
        typer.echo(record.value or b"")


def _is_of(detail: MessageDetail, payload: bytes | None) -> bool:
    digest = hashlib.sha256(payload or b"").hexdigest()
    return digest in {row["payload_sha256"] for row in (detail.message, *detail.others)}


def _is_topic_id(log: str) -> bool:
    """Kafka's ids are UUIDs; those of files are hashes."""
    try:
        return str(uuid.UUID(log)) == log
    except ValueError:
        return False


def _topic_id(cluster: Cluster, topic: str) -> str | None:
    """The id of a topic; None where there is no such topic, or on brokers without ids."""
    from kafka import KafkaAdminClient

    with cluster.explained(), closing(KafkaAdminClient(**cluster.options())) as admin:
        found: list[Any] = admin.describe_topics([topic])
    ids = [one.get("topic_id") for one in found if one.get("name") == topic and not one.get("error_code")]
    known = [uuid.UUID(str(each)) for each in ids if each is not None]
    return str(known[0]) if known and known[0].int else None
