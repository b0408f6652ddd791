"""`awry label`: labels from what the model itself wrote."""

from __future__ import annotations

import json
from pathlib import Path

from monitor.cli import options as o
from monitor.cli.inputs import check_choice, load
from monitor.cli.output import say
from monitor.cli.tree import Commands

commands = Commands()


@commands.command()
def label(
    messages: o.MessagesFile,
    metric: o.Judge = "code",
    model: o.Model = None,
    adapter: o.Adapter = None,
    scale: o.Scale = None,
    out: o.Out = Path("labelled.jsonl"),
    max_new_tokens: o.MaxNewTokens = 40,
    as_response: o.AsResponse = False,
    state_dir: o.StateDir = None,
) -> None:
    """Let the model reply to every message and judge the replies: writes `answer` and `label` for awry fit.

    A probe of prompts does not read `answer`. For a probe of responses, --as-response writes `response` in its place.
    """
    from monitor.datasets import read_messages
    from monitor.labelling import generate_replies
    from probes.organisms.judges import JUDGES

    check_choice("metric", metric, tuple(JUDGES))
    items = read_messages(messages)
    settings, chat = load(model, adapter, scale, state_dir)
    say(f"generating replies to {len(items)} messages")
    texts, _ = generate_replies(
        chat, [i.message.turns for i in items], settings.state_dir, max_new_tokens=max_new_tokens
    )
    labels = [JUDGES[metric](text) for text in texts]
    reply = "response" if as_response else "answer"
    with out.open("w", encoding="utf-8") as file:
        for item, text, bad in zip(items, texts, labels, strict=True):
            row = item.message.as_json() | {"group": item.group, reply: text, "label": bad}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    say(f"{sum(labels)} of {len(labels)} labelled misaligned by the judge {metric}; written to {out}")
