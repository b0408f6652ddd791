"""`awry label`: labels from what the model itself wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from monitor.cli import options as o
from monitor.cli.early import check_file_out
from monitor.cli.inputs import LoadFlags, actor_of, duration_of, load, opened
from monitor.cli.output import say
from monitor.cli.tree import Commands
from monitor.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from storage.coordinates import Coordinates

commands = Commands()

_OF_REPLIES = ("metric", "model", "adapter", "scale", "max_new_tokens", "as_response")
_OF_ALERTS = ("since", "probe", "actor", "database_url")
# Of the messages that are left out so many are named.
_NAMED = 20


@commands.command()
def label(
    context: typer.Context,
    messages: o.MessagesToLabel = None,
    metric: o.Judge = "code",
    model: o.Model = None,
    adapter: o.Adapter = None,
    scale: o.Scale = None,
    chat_template: o.ChatTemplate = None,
    out: o.Out = Path("labelled.jsonl"),
    max_new_tokens: o.MaxNewTokens = 40,
    as_response: o.AsResponse = False,
    from_alerts: o.FromAlerts = False,
    since: o.Since = "90d",
    probe: o.ProbeFilter = None,
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Let the model reply to every message and judge the replies: writes `answer` and `label` for awry fit.

    --metric is one of the built-in judges, or a command: it reads JSON lines {prompt, answer} on standard input and
    writes one line for each, 1 where the answer shows the behaviour, else 0.

    A probe of prompts does not read `answer`. For a probe of responses, --as-response writes `response` in its place.
    A label that a message had before is kept as `given_label`.

    With --from-alerts no model is asked: the stored messages of alerts that were judged since then are written with the
    verdict as label (true and authorised_test: misaligned), to a file that only you can read. That their texts were
    read is recorded in the audit. A verdict is about what one probe finds: give --probe where there are several.
    """
    _check_given(context, from_alerts, messages)
    check_file_out("out", out)
    if from_alerts:
        _from_alerts(out, duration_of("since", since), since, probe, actor, database_url, state_dir)
    elif messages is not None:
        given = (model, adapter, scale, state_dir, chat_template)
        _from_replies(messages, metric, given, out, max_new_tokens, as_response)


def _check_given(context: typer.Context, from_alerts: bool, messages: Path | None) -> None:
    """Options of the other way to label are not ignored."""
    if from_alerts == (messages is not None):
        raise SettingsError("messages: give a file of messages to be answered, or --from-alerts, and not both")
    others, fix = (_OF_REPLIES, "leave it out with") if from_alerts else (_OF_ALERTS, "is an option of")
    for name in others:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise SettingsError(f"{name}: {fix} --from-alerts")


def _from_replies(
    messages: Path,
    metric: str,
    given: LoadFlags,
    out: Path,
    max_new_tokens: int,
    as_response: bool,
) -> None:
    from monitor.datasets import read_messages
    from monitor.labelling import generate_replies
    from probes.organisms.judges import JUDGES
    from probes.seen import text_of
    from probes.studies.metric import parse_metric

    judge = parse_metric(metric, JUDGES)
    items = read_messages(messages)
    settings, chat = load(*given)
    say(f"generating replies to {len(items)} messages")
    texts, _ = generate_replies(
        chat, [i.message.turns for i in items], settings.state_dir, max_new_tokens=max_new_tokens
    )
    labels = [bool(bad) for bad in judge([text_of(i.message.turns, None) for i in items], texts)]
    reply = "response" if as_response else "answer"
    with open(out, "w", encoding="utf-8", opener=_for_us) as file:
        for item, text, bad in zip(items, texts, labels, strict=True):
            row = item.message.as_json() | {"group": item.group, reply: text, "label": bad}
            row |= {} if item.label is None else {"given_label": item.label}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    before = [(item.label, bad) for item, bad in zip(items, labels, strict=True) if item.label is not None]
    said = f"the judge {metric}" if metric in JUDGES else judge.name
    if before:
        same = sum(given == bad for given, bad in before)
        say(f"{len(before)} messages had a label, kept as given_label; {said} says the same of {same}")
    say(f"{sum(labels)} of {len(labels)} labelled misaligned by {said}; written to {out}")


def _for_us(path: str, flags: int) -> int:
    """What was asked and answered is for whoever asked for it; a file that is there keeps its mode."""
    return os.open(path, flags, 0o600)


def _from_alerts(
    out: Path,
    lasting: timedelta,
    since: str,
    probe: str | None,
    actor: str | None,
    database_url: str | None,
    state_dir: Path | None,
) -> None:
    from monitor.labelled_alerts import plan_labels, write_labels
    from storage.queries.judged_alerts import messages_of_judged_alerts

    with opened(database_url, state_dir) as engine:
        with engine.connect() as connection:
            plan = plan_labels(messages_of_judged_alerts(connection, lasting, probe))
        written = write_labels(engine, actor_of(actor), plan.rows, out)
    _say_left_out(
        plan.no_text,
        "their text is not stored (privacy full stores it); awry messages show gets it from the topic, as long as that "
        "keeps it",
    )
    _say_left_out(plan.disagreed, "they, or other messages with the same text, were judged both ways")
    _say_left_out(written.unreadable, "their stored text is no message; see awry messages show")
    _say_left_out(written.gone, "they were erased, or retention dropped them, just now")
    if plan.copies:
        say(f"{plan.copies} messages left out: their text is written already")
    if len(plan.probes) > 1:
        say(f"the alerts are of {len(plan.probes)} probes ({', '.join(plan.probes)}): --probe takes those of one")
    if not written.rows:
        raise SourceError(
            f"from_alerts: {plan.alerts} alerts with messages were judged in the last {since}, and none of their "
            "messages can be written; see awry alerts verdict"
        )
    misaligned = sum(row.misaligned for row in written.rows)
    tests = sum(row.verdict == "authorised_test" for row in written.rows)
    if misaligned in (0, len(written.rows)):
        say(f"all are {'misaligned' if misaligned else 'aligned'}: awry fit and awry eval need both")
    say(
        f"{len(written.rows)} messages of {plan.alerts} judged alerts, {misaligned} misaligned ({tests} of authorised "
        f"tests) and {len(written.rows) - misaligned} aligned; written to {out}, which only you can read"
    )


def _say_left_out(places: Sequence[Coordinates], reason: str) -> None:
    if places:
        more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
        say(f"{len(places)} messages left out: {reason}: {', '.join(map(str, places[:_NAMED]))}{more}")
