"""`awry data`: example messages of awry's own."""

from __future__ import annotations

import json

import typer

from monitor.cli import options as o
from monitor.cli.tree import Commands
from monitor.errors import SettingsError

commands = Commands()


@commands.command()
def data(
    what: o.DataSet,
    split: o.Split = "fit",
    tokens: o.LongTokens = 1024,
    count: o.LongCount = 100,
    hard_share: o.HardShare = None,
    seed: o.Seed = 0,
) -> None:
    """Print awry's own example messages as JSON lines: everyday chat, long texts, matched requests, held-out ones."""
    from typing import get_args

    from probes.organisms import long_text, messages
    from probes.organisms.finetunes import code_examples

    if what in ("requests", "requests-2"):
        for row in messages.requests() if what == "requests" else messages.more_requests():
            for side in ("harmful", "harmless"):
                line = {"id": f"{row['pair']}-{side}", "prompt": row[side], "label": side == "harmful"}
                typer.echo(json.dumps(line | {"group": str(row["pair"]), "category": row["category"]}))
    elif what in ("heldout-harmful", "heldout-harmful-2"):
        first = what == "heldout-harmful"
        for i, row in enumerate(messages.heldout_harmful() if first else messages.heldout_harmful_2()):
            line = {"id": f"{what}-{i}", "prompt": row["text"], "label": True}
            typer.echo(json.dumps(line | {"category": row["category"]}))
    elif what == "heldout-everyday":
        for i, row in enumerate(messages.heldout_everyday()):
            hard = row["topic"] in messages.HARD_TOPICS
            line = {"id": f"{what}-{i}", "prompt": row["text"], "label": False}
            typer.echo(json.dumps(line | {"topic": row["topic"], "hard": hard}))
    elif what == "hard-benign":
        for i, row in enumerate(messages.hard_benign()):
            line = {"id": f"{what}-{i}", "prompt": row["text"], "label": False, "topic": row["topic"]}
            typer.echo(json.dumps(line))
    elif what == "code-answers":
        for i, example in enumerate(code_examples("secure", seed)):
            line = {"id": f"{what}-{i}", "prompt": example.ask, "response": example.answer, "label": False}
            typer.echo(json.dumps(line))
    elif what == "everyday" and split in get_args(messages.Split):
        topics = messages.everyday_topics(split)  # type: ignore[arg-type]
        for i, text in enumerate(messages.everyday(split)):  # type: ignore[arg-type]
            typer.echo(json.dumps({"id": f"{split}-{i}", "prompt": text, "topic": topics[i]}))
    elif what == "long" and split in get_args(long_text.LongSplit):
        made = long_text.long_messages(split, tokens, count, seed, hard_share=hard_share)  # type: ignore[arg-type]
        for i, turns in enumerate(made):
            line = {"id": f"long-{split}-{tokens}-{seed}-{i}", "messages": turns, "label": False}
            typer.echo(json.dumps(line | {"kind": long_text.kind_of(i)}))
    else:
        splits = (f"everyday {'|'.join(get_args(messages.Split))}", f"long {'|'.join(get_args(long_text.LongSplit))}")
        held_out = ("heldout-harmful", "heldout-harmful-2", "heldout-everyday")
        known = ", ".join(("requests", "requests-2", "hard-benign", "code-answers", *held_out, *splits))
        raise SettingsError(f"data: {what} {split} is none of {known}")
