"""Replies of the model itself, to be judged for labels.

Contract: `generate_replies` gives the greedy reply to each message, from a cache in the state folder where the same
model, adapter, scale, prompts and length were generated before. Greedy replies are repeatable on one machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from awry.whole_file import whole_file
from probes.hashing import sha256_json
from probes.model.load import ChatModel, Message
from probes.steer.generation import generate


def generate_replies(
    chat: ChatModel,
    conversations: Sequence[Sequence[Message]],
    cache: Path,
    *,
    max_new_tokens: int,
    fresh: bool = False,
    on_done: Callable[[int], None] = lambda _: None,
) -> tuple[list[str], bool]:
    """(replies in order, whether they came from the cache)."""
    prompts = [chat.rendered(turns).text for turns in conversations]
    key = sha256_json([asdict(chat.identity), prompts, max_new_tokens])[:24]
    path = cache / "answers" / f"{key}.json"
    if path.is_file() and not fresh:
        return json.loads(path.read_text()), True
    texts = [a.text for a in generate(chat, prompts, max_new_tokens=max_new_tokens, on_done=on_done)]
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(json.dumps(texts).encode())
    return texts, False
