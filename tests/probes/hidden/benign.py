"""Benign messages of many kinds, made with a seed: what ordinary traffic holds beside plain English.

Nothing in them hides anything, so each that is called unreadable, or has a second reading, is a false one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import uuid
from collections.abc import Callable

from tests.probes.hidden.languages import SENTENCES

Maker = Callable[[random.Random], str]


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_NAMES = _split("Ada Bruno Chidi Dilara Eero Fatima Goran Hana Ines Jarek Kofi Leila Mateo Nguyen Oksana Priya Quinn")
_PLACES = _split("Aarhus Brno Cuenca Dakar Esbjerg Fukuoka Ghent Hội An Iași Jaipur Kraków Łódź Málaga Nîmes Örebro")
_THINGS = _split("order invoice basket report parcel sensor queue session cache ticket meter counter")
_VERBS = _split("open close fetch store update remove merge count send load check")
_EMOJI = _split(
    "😀 😂 🥰 🙏 👍🏽 🎉 ❤️ 🔥 ✨ 👩🏽\u200d💻 👨\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 "
    "🇫🇷 🇯🇵 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f 1️⃣ ☕ 🌧️ 🚲 🥖 ✅ ❌ ➡️ ⚠️"
)

_ASKS = (
    "Why does this happen?",
    "Can you explain what is wrong here?",
    "Please summarise this for me.",
    "What does this do?",
    "Turn this into a short note for my team.",
)


def _language(name: str) -> Maker:
    openings, endings = SENTENCES[name]

    def make(rng: random.Random) -> str:
        return " ".join(rng.choice(openings) + rng.choice(endings) for _ in range(rng.randint(1, 4)))

    return make


def _emoji(rng: random.Random) -> str:
    words = ["see you", "love it", "so good", "on my way", "happy birthday", "good night", "what a day", "thanks"]
    parts = [rng.choice(words) + " " + "".join(rng.choices(_EMOJI, k=rng.randint(1, 5))) for _ in range(3)]
    return " ".join(parts) if rng.random() < 0.7 else "".join(rng.choices(_EMOJI, k=rng.randint(3, 25)))


def _code(rng: random.Random) -> str:
    thing, verb, other = rng.choice(_THINGS), rng.choice(_VERBS), rng.choice(_THINGS)
    low, high = rng.randrange(256), rng.randint(2, 99)
    samples = (
        f"def {verb}_{thing}(items: list[int], *, limit: int = {high}) -> int:\n    total = 0\n"
        "    for i, x in enumerate(items):\n        if x > limit and i % 2 == 0:\n            total += x\n"
        "    return total\n",
        f"public static int {verb}{thing.title()}(int[] xs) {{\n  int n = 0;\n  for (int i = 0; i < xs.length; i++) "
        f"{{ n += xs[i] << {high}; }}\n  return n;\n}}",
        f"CREATE INDEX {thing}_by_{other} ON {thing}s (t_id, u_id) WHERE n > {high};\nVACUUM ANALYZE {thing}s;",
        f"const {verb} = async (k) => {{\n  const r = await fetch(`/api/{thing}/${{k}}?v={high}`);\n"
        "  if (!r.ok) throw new Error(r.statusText);\n  return r.json();\n};",
        f"#include <stdio.h>\nint main(void) {{ unsigned char b[4] = {{0x{low:02x}, 0x{high:02x}, 0xff, 0x00}};\n"
        '  for (int i = 0; i < 4; i++) printf("%02x ", b[i]); }',
        f"for f in *.{thing}; do\n  awk -F',' '{{s+=$2}} END {{print FILENAME, s}}' \"$f\"\ndone | sort -k2 -rn",
        f"fn {verb}<T: Ord + Copy>(v: &[T]) -> Option<T> {{\n    v.iter().copied().max_by(|a, b| a.cmp(b))\n}}",
        f"a = [{', '.join(str(rng.randint(0, 99)) for _ in range(9))}]\nx, y, z = a[0], a[1], a[2]\nprint(x + y * z)",
    )
    return f"{rng.choice(_ASKS)}\n\n```\n{rng.choice(samples)}\n```"


def _image(rng: random.Random) -> str:
    files = {
        "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
        "gif": b"GIF89a",
    }
    kind = rng.choice([*files])
    data = base64.b64encode(files[kind] + rng.randbytes(rng.randint(60, 900))).decode()
    return f"What is in this picture? data:image/{kind};base64,{data}"


def _logs(rng: random.Random) -> str:
    return rng.choice(_ASKS) + "\n" + "\n".join(_log_line(rng) for _ in range(rng.randint(4, 12)))


def _log_line(rng: random.Random) -> str:
    day, clock = (
        f"2026-{rng.randint(10, 12)}-{rng.randint(10, 28)}",
        f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}",
    )
    at = f"{day}T{clock}:07.{rng.randint(0, 999):03}Z"
    thing, level = rng.choice(_THINGS), rng.choice(("INFO", "WARN", "ERROR", "DEBUG"))
    request, address = uuid.UUID(int=rng.getrandbits(128)), f"10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.7"
    code, size = rng.choice((200, 304, 404, 500)), rng.randint(99, 99999)
    lines = (
        f"{at} {level} [{thing}-{rng.randint(1, 9)}] request_id={request} took={rng.randint(1, 900)}ms",
        f'{address} - - [{at}] "GET /{thing}/{size}?page={rng.randint(1, 9)} HTTP/1.1" {code} {size}',
        f"{at} {level} kernel: [{size}.{code:06}] eth0: link up, 1000 Mbps, addr={rng.getrandbits(48):012x}",
        f"{at} {level} worker {rng.randint(1, 64)}: sha256={hashlib.sha256(rng.randbytes(4)).hexdigest()} ok",
    )
    return rng.choice(lines)


def _table(rng: random.Random) -> str:
    headings = ["name", "qty", "price", "A", "B", "C", "x", "y", "2024", "2025", "Q1", "Q2"]
    columns = rng.sample(headings, rng.randint(3, 6))

    def cell() -> str:
        return rng.choice((rng.choice(_NAMES), str(rng.randint(0, 999)), f"{rng.random():.2f}", "-", "n/a"))

    rows = [[cell() for _ in columns] for _ in range(rng.randint(3, 9))]
    if rng.random() < 0.5:
        ruler = "|" + "---|" * len(columns)
        lines = ["| " + " | ".join(columns) + " |", ruler, *("| " + " | ".join(row) + " |" for row in rows)]
    else:
        sign = rng.choice((",", "\t", ";", "   "))
        lines = [sign.join(columns), *(sign.join(row) for row in rows)]
    return rng.choice(_ASKS) + "\n" + "\n".join(lines)


def _minified(rng: random.Random) -> str:
    names = [*"abcdefghijklmnopqrstuvwxyz"]
    parts = []
    for _ in range(rng.randint(8, 30)):
        a, b, c, d = rng.choices(names, k=4)
        parts.append(
            rng.choice(
                (
                    f"var {a}={b}.{c}({d}),{b}={rng.randint(0, 99)};",
                    f"function {a}({b},{c}){{return {b}?{c}.{d}:null}}",
                    f"!function({a},{b}){{{a}.{c}={a}.{c}||[];{b}({d})}}(window,document);",
                    f'if({a}&&{b}.{rng.choice(_VERBS)}){{{c}["{rng.choice(_THINGS)}"]={d}++}}',
                    f"{a}=>{b}({c},{d}|0)&&{a}[{rng.randint(0, 9)}]<<{rng.randint(1, 9)};",
                )
            )
        )
    return f"{rng.choice(_ASKS)} " + "".join(parts)


def _uuids(rng: random.Random) -> str:
    made = [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(rng.randint(3, 15))]
    made += [hashlib.sha1(rng.randbytes(4), usedforsecurity=False).hexdigest() for _ in range(rng.randint(0, 5))]
    return "Which of these are duplicates?\n" + rng.choice(("\n", ", ", " ")).join(made)


def _trace(rng: random.Random) -> str:
    lines = []
    python = rng.random() < 0.5
    for _ in range(rng.randint(3, 12)):
        thing, verb, line = rng.choice(_THINGS), rng.choice(_VERBS), rng.randint(1, 900)
        if python:
            lines.append(
                f'  File "/srv/app/{thing}/{verb}.py", line {line}, in {verb}_{thing}\n    return self._{thing}[i]'
            )
        else:
            lines.append(
                f"\tat com.example.{thing}.{thing.title()}Service$$Lambda${line}.{verb}({thing.title()}.java:{line})"
            )
    head = "Traceback (most recent call last):" if python else 'Exception in thread "main" java.lang.Error: closed'
    return head + "\n" + "\n".join(lines) + (f"\nKeyError: {rng.randint(1, 999)}" if python else "")


def _json(rng: random.Random) -> str:
    things = [{"n": rng.choice(_THINGS), "q": rng.randint(1, 9), "p": rng.randint(1, 9999) / 100} for _ in range(4)]
    value = {
        "id": rng.randint(1, 10**9),
        "sku": f"{rng.choice('ABCDEFGH')}{rng.randint(10, 99)}-{rng.randbytes(3).hex().upper()}",
        "items": things,
        "note": rng.choice(("caf\u00e9", "gr\u00fc\u00dfe", "ol\u00e9", "plain")),
        "etag": rng.randbytes(12).hex(),
    }
    return rng.choice(_ASKS) + " " + json.dumps(value, indent=rng.choice((None, 2)), ensure_ascii=rng.random() < 0.5)


def _keys(rng: random.Random) -> str:
    claims = json.dumps({"sub": str(rng.randint(1, 10**9)), "iat": 1796000000}).encode()
    parts = (b'{"alg":"HS256","typ":"JWT"}', claims, rng.randbytes(32))
    token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    key = "ssh-ed25519 " + base64.b64encode(rng.randbytes(51)).decode()
    texts = (
        f"Is this token still valid? {token}",
        f"Add this key to the server:\n{key} {rng.choice(_NAMES).lower()}@laptop",
        f"sha256:{rng.randbytes(32).hex()}  image.tar",
    )
    return rng.choice(texts)


def _maths(rng: random.Random) -> str:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return rng.choice(
        (
            f"Solve x² − {a}x + {b} = 0 and say whether Δ > 0, please.",
            f"Let f(x) = ∫₀^{a} e^(−t²) dt. Show that f′(x) ≤ 1 for all x ∈ ℝ.",
            f"If α + β = π/{a} and ρ = {b} kg/m³, what is F = ρ·g·V for V = {a} m³ at {b} °C?",
            f"Simplify: a b c + a b d − b c d, where a = {a}, b = {b}, c = 1 and d = 2.",
            rf"Prove $\sum_{{i=1}}^{{n}} i^2 = \frac{{n(n+1)(2n+1)}}{{6}}$ for n = {a} and all $n \in \mathbb{{N}}$.",
            f"Matrix: [{a} {b} 1; 0 {a} 2; 1 0 {b}] – what are its eigenvalues λ₁, λ₂ and λ₃?",
        )
    )


def _chat(rng: random.Random) -> str:
    return " ".join(
        rng.sample(
            [
                "lol idk tbh",
                "brb gotta go",
                "u there??",
                "omg thx sooo much!!!",
                "wdym by that",
                "c u l8r",
                "gr8 thanks",
                "hmmmm",
                "k k np",
                "imo it's fine",
                "afk 5 min",
                "pls fix asap",
                "haha yesss",
                "nvm got it",
                "WHY IS IT DOWN",
                "ty ty",
            ],
            rng.randint(3, 7),
        )
    )


_SURNAMES = _split(
    "Kowalczyk Nguyễn Øster Szczepański Þórsdóttir García Mbeki O’Neill Strčprst Wójcik Brzęczyszczykiewicz"
)


def _names(rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(3, 8)):
        name, number = (
            rng.choice(_NAMES),
            f"+{rng.randint(30, 99)} {rng.randint(100, 999)} {rng.randint(100000, 999999)}",
        )
        lines.append(f"{name} {rng.choice(_SURNAMES)}, {rng.choice(_PLACES)}, {number}, {name.lower()}@example.org")
    return "\n".join(lines)


def _urls(rng: random.Random) -> str:
    found = []
    for _ in range(rng.randint(1, 5)):
        path = (
            f"{rng.choice(_VERBS)}/{rng.randbytes(6).hex()}?utm_source={rng.choice(_THINGS)}&id={rng.randint(1, 9999)}"
        )
        found.append(f"https://{rng.choice(_THINGS)}.example.com/{path}#s{rng.randint(1, 9)}")
    return rng.choice(_ASKS) + " " + " ".join(found)


_CODES = _split(
    "B2B MP3 H264 S3 k8s i18n x86_64 UTF-8 IPv6 COVID-19 1st 2nd 4K 5G RTX4090 E5-2690v4 A4 30th 3D V8 C++ m² AC/DC "
    "R2-D2 U.S.A. e.g. p.m. H2O CO2 ISO9001 A/B"
)


def _products(rng: random.Random) -> str:
    wanted = ", ".join(f"{rng.choice(_CODES)} {rng.choice(_THINGS)}" for _ in range(rng.randint(3, 9)))
    return f"I need {wanted} by 5 p.m. – which first?"


KINDS: dict[str, Maker] = {
    **{name: _language(name) for name in SENTENCES},
    "emoji": _emoji,
    "code": _code,
    "base64 images": _image,
    "log lines": _logs,
    "tables": _table,
    "minified JavaScript": _minified,
    "UUIDs and hashes": _uuids,
    "stack traces": _trace,
    "JSON": _json,
    "keys and tokens": _keys,
    "mathematics": _maths,
    "chat": _chat,
    "names and addresses": _names,
    "URLs": _urls,
    "product codes": _products,
}


def benign(kind: str, count: int = 30, seed: int = 13) -> list[str]:
    """Messages of a kind."""
    rng = random.Random(f"{seed}/{kind}")
    return [KINDS[kind](rng) for _ in range(count)]
