"""A second reading beside a server, as a sidecar does it: `python -m benchmarks.support.scoring_process PROBE ...`.

Reads messages as lines of awry's own JSON from standard input, scores what waits with awry's own engine (transformers,
as `awry run` does, at most 64 at a time), and writes a line for each message. The first line says that it is ready.
"""

from __future__ import annotations

import json
import queue
import sys
import threading

from monitor.service.bootstrap import load_model
from monitor.service.scoring import BatchScorer
from monitor.settings import load_settings
from monitor.stream.wire import WireMessage
from probes.card import load_probe

_BATCH = 64


def main() -> None:
    chat = load_model(load_settings(), lambda _: None)
    probes = [load_probe(name) for name in sys.argv[1:]]
    scorer = BatchScorer(chat, probes, token_budget=2048, max_tokens=2048, skip_over_long=False)
    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            waiting.put(line)
        waiting.put(None)

    threading.Thread(target=read, daemon=True).start()
    print("ready", flush=True)
    ended = False
    while not ended:
        lines = [waiting.get()]
        while len(lines) < _BATCH and not waiting.empty():
            lines.append(waiting.get())
        ended = None in lines
        given = [json.loads(line) for line in lines if line is not None]
        messages = [WireMessage(each["id"], each["messages"], each["response"]) for each in given]
        if messages:
            scorer(messages)
        for message in messages:
            print(message.id, flush=True)


if __name__ == "__main__":
    main()
