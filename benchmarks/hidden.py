"""Microseconds that the search for hidden text costs a message: `python -m benchmarks.hidden`.

Messages of about 1 KB of ordinary kinds, of hidden text, and the worst that was found for each part of the search, in
one run on one core: CPU time, the best of several rounds. `ms_a_million` is what a million characters of the same cost,
of which only the last `Budget.looked` are looked at. Writes docs/bench-hidden.json.
"""

from __future__ import annotations

import base64
import codecs
import json
import random
import time
import timeit
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.report import machine
from probes.hidden import DEFAULT_BUDGET, Tokens, look

OUT = Path("docs/bench-hidden.json")
ROUNDS = 15
SIZE = 1000
ENGLISH = "Good morning. Which of your shops is open on Sunday, and until when? I would like two loaves of rye bread. "
FRENCH = "Bonjour, pourriez-vous m’expliquer comment préparer une pâte brisée ? J’ai essayé, mais elle s’effrite… "
RUSSIAN = "Здравствуйте, подскажите, пожалуйста, как испечь хлеб дома без дрожжей и сколько времени это займёт? "
CHINESE = "请问怎样在家里不用酵母做面包？需要多长时间？谢谢！"
CODE = "def total(items: list[int], limit: int = 10) -> int:\n    return sum(x for x in items if x > limit)\n\n"
LOG = "2026-11-28T21:{:02}:07.123Z INFO [cache-{}] request_id={} took={}ms\n"


def _logs(rng: random.Random) -> str:
    ids = (uuid.UUID(int=rng.getrandbits(128)) for _ in range(99))
    return "".join(LOG.format(i % 60, i % 9, each, rng.randint(1, 900)) for i, each in enumerate(ids))


def _nested(text: str, times: int) -> str:
    for _ in range(times):
        text = base64.b64encode(text.encode()).decode()
    return text


def messages() -> Iterator[tuple[str, str, str]]:
    """(group, what, a text of it that is long enough)."""
    rng = random.Random(1)
    ordinary = {
        "English": ENGLISH,
        "French, typographic": FRENCH,
        "Russian": RUSSIAN,
        "Chinese": CHINESE,
        "Python": CODE,
        "log lines": _logs(rng),
        "emoji": "What a day! 🎉👩🏽‍💻 See you ❤️ ",
        "an image in base64": "data:image/png;base64,"
        + base64.b64encode(b"\x89PNG\r\n\x1a\n" + rng.randbytes(9000)).decode(),
    }
    hidden = {
        "zero-width": "\u200b".join(ENGLISH),
        "homoglyphs": ENGLISH.translate(str.maketrans("aeopc", "аеорс")),
        "full-width": "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in ENGLISH),
        "spaced letters": "   ".join(" ".join(word) for word in ENGLISH.split()),
        "leet": ENGLISH.translate(str.maketrans("aeios", "43105")),
        "rot13": codecs.encode(ENGLISH, "rot13"),
        "base64": _nested(ENGLISH * 7, 1),
        "base64, three times": _nested(ENGLISH * 4, 3),
    }
    worst = {
        "base64 in groups that is none": "aB3a ",
        "leet that is none": "q7x9z ",
        "words of look-alikes": "аb ",
        "one run of base64's letters": "aB3+",
        "one run of capitals": "A",
        "escapes": "\\u0041",
        "letters like no language": "qxz vbk jjw ",
        "alternating case": "hElLo ThErE ",
    }
    for group, texts in (("ordinary", ordinary), ("hidden", hidden), ("worst", worst)):
        for what, text in texts.items():
            yield group, what, text


def _microseconds(text: str, calls: int) -> float:
    turns = [{"role": "user", "content": text}]
    timer = timeit.Timer(partial(look, turns, tokens=Tokens(lambda t: len(t) // 4 + 1)), timer=time.process_time)
    return min(timer.repeat(number=calls, repeat=ROUNDS)) / calls * 1e6


def main() -> None:
    """Measure, print and write."""
    rows = []
    for group, what, text in messages():
        message = (text * (SIZE // len(text) + 1))[:SIZE] if len(text) < SIZE else text[:SIZE]
        found = look([{"role": "user", "content": message}])
        long = (text * (1_000_000 // len(text) + 1))[:1_000_000]
        started = time.process_time()
        look([{"role": "user", "content": long}])
        million = (time.process_time() - started) * 1e3
        row = {
            "group": group,
            "what": what,
            "bytes": len(message.encode("utf-8", "surrogatepass")),
            "microseconds": round(_microseconds(message, 50), 1),
            "ms_a_million": round(million, 1),
            "readings": [reading.kind for reading in found.readings],
        }
        rows.append(row)
        size, cost = row["bytes"], row["microseconds"]
        print(f"{group:9} {what:30} {size:6} bytes {cost:8.1f} us {million:8.1f} ms a million")
    OUT.write_text(json.dumps({"machine": machine(), "looked": DEFAULT_BUDGET.looked, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
