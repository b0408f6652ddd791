"""`awry data`: example messages of awry's own."""

from __future__ import annotations

import json

import typer

from monitor.cli import options as o
from monitor.cli.tree import Commands
from monitor.errors import SettingsError

commands = Commands()


@commands.command()
def data(what: o.DataSet, split: o.Split = "fit") -> None:
    """Print awry's own example messages as JSON lines: everyday chat, or matched harmful and harmless requests."""
    from typing import get_args

    from probes.organisms import messages

    if what == "requests":
        for row in messages.requests():
            for side in ("harmful", "harmless"):
                line = {"id": f"{row['pair']}-{side}", "prompt": row[side], "label": side == "harmful"}
                typer.echo(json.dumps(line | {"group": str(row["pair"]), "category": row["category"]}))
    elif what == "everyday" and split in get_args(messages.Split):
        topics = messages.everyday_topics(split)  # type: ignore[arg-type]
        for i, text in enumerate(messages.everyday(split)):  # type: ignore[arg-type]
            typer.echo(json.dumps({"id": f"{split}-{i}", "prompt": text, "topic": topics[i]}))
    else:
        raise SettingsError(f"data: {what} {split} is none of requests, everyday {'|'.join(get_args(messages.Split))}")
