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

_NAMES = [
    "Ada",
    "Bruno",
    "Chidi",
    "Dilara",
    "Eero",
    "Fatima",
    "Goran",
    "Hana",
    "Ines",
    "Jarek",
    "Kofi",
    "Leila",
    "Mateo",
    "Nguyen",
    "Oksana",
    "Priya",
    "Quinn",
]
_PLACES = [
    "Aarhus",
    "Brno",
    "Cuenca",
    "Dakar",
    "Esbjerg",
    "Fukuoka",
    "Ghent",
    "Hội",
    "An",
    "Iași",
    "Jaipur",
    "Kraków",
    "Łódź",
    "Málaga",
    "Nîmes",
    "Örebro",
]
_THINGS = [
    "order",
    "invoice",
    "basket",
    "report",
    "parcel",
    "sensor",
    "queue",
    "session",
    "cache",
    "ticket",
    "meter",
    "counter",
]
_VERBS = ["open", "close", "fetch", "store", "update", "remove", "merge", "count", "send", "load", "check"]
_EMOJI = [
    "😀",
    "😂",
    "🥰",
    "🙏",
    "👍🏽",
    "🎉",
    "❤️",
    "🔥",
    "✨",
    "👩🏽\u200d💻",
    "👨\u200d👩\u200d👧\u200d👦",
    "🏳️\u200d🌈",
    "🇫🇷",
    "🇯🇵",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "1️⃣",
    "☕",
    "🌧️",
    "🚲",
    "🥖",
    "✅",
    "❌",
    "➡️",
    "⚠️",
]
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
    samples = (
        f"def {verb}_{thing}(items: list[int], *, limit: int = {rng.randint(2, 99)}) -> int:\n    total = 0\n"
        f"    for i, x in enumerate(items):\n        if x > limit and i % 2 == 0:\n            total += x\n    return total\n",
        f"public static int {verb}{thing.title()}(int[] xs) {{\n  int n = 0;\n  for (int i = 0; i < xs.length; i++) "
        f"{{ n += xs[i] << {rng.randint(1, 7)}; }}\n  return n;\n}}",
        f"SELECT {thing}_id, count(*) AS n FROM {thing}s AS t JOIN {other}s AS u ON t.id = u.{thing}_id\n"
        f"WHERE u.created_at > now() - interval '{rng.randint(1, 30)} days' GROUP BY 1 ORDER BY n DESC LIMIT 10;",
        f"const {verb} = async (k) => {{\n  const r = await fetch(`/api/{thing}/${{k}}?v={rng.randint(1, 9)}`);\n"
        "  if (!r.ok) throw new Error(r.statusText);\n  return r.json();\n};",
        f"#include <stdio.h>\nint main(void) {{ unsigned char b[4] = {{0x{rng.randrange(256):02x}, 0x{rng.randrange(256):02x}, "
        f'0xff, 0x00}}; for (int i = 0; i < 4; i++) printf("%02x ", b[i]); }}',
        f"for f in *.{rng.choice(['txt', 'log', 'csv'])}; do awk -F',' '{{s+=$2}} END {{print FILENAME, s}}' \"$f\"; done | sort -k2 -rn",
        f"fn {verb}<T: Ord + Copy>(v: &[T]) -> Option<T> {{\n    v.iter().copied().max_by(|a, b| a.cmp(b))\n}}",
        f"a = [{', '.join(str(rng.randint(0, 99)) for _ in range(9))}]\nx, y, z = a[0], a[1], a[2]\nprint(x + y * z)",
    )
    return f"{rng.choice(_ASKS)}\n\n```\n{rng.choice(samples)}\n```"


def _image(rng: random.Random) -> str:
    heads = (
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "jpeg"),
        (b"GIF89a", "gif"),
    )
    head, kind = rng.choice(heads)
    data = base64.b64encode(head + rng.randbytes(rng.randint(60, 900))).decode()
    return f"What is in this picture? data:image/{kind};base64,{data}"


def _logs(rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(4, 12)):
        clock = f"2026-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}T{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:07.{rng.randint(0, 999):03}Z"
        host, level = (
            f"10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.7",
            rng.choice(("INFO", "WARN", "ERROR", "DEBUG")),
        )
        lines.append(
            rng.choice(
                (
                    f"{clock} {level} [{rng.choice(_THINGS)}-{rng.randint(1, 9)}] request_id={uuid.UUID(int=rng.getrandbits(128))} took={rng.randint(1, 900)}ms",
                    f'{host} - - [{clock}] "GET /{rng.choice(_THINGS)}/{rng.randint(1, 9999)}?page={rng.randint(1, 9)} HTTP/1.1" {rng.choice((200, 304, 404, 500))} {rng.randint(99, 99999)}',
                    f"{clock} {level} kernel: [{rng.randint(1, 99999)}.{rng.randint(0, 999999):06}] eth0: link up, {rng.choice((100, 1000))} Mbps, addr={rng.getrandbits(48):012x}",
                    f"{clock} {level} worker {rng.randint(1, 64)}: sha256={hashlib.sha256(rng.randbytes(4)).hexdigest()} ok",
                )
            )
        )
    return rng.choice(_ASKS) + "\n" + "\n".join(lines)


def _table(rng: random.Random) -> str:
    columns = rng.sample(
        ["name", "qty", "price", "A", "B", "C", "x", "y", "2024", "2025", "Q1", "Q2"], rng.randint(3, 6)
    )
    rows = [
        [rng.choice((rng.choice(_NAMES), str(rng.randint(0, 999)), f"{rng.random():.2f}", "-", "n/a")) for _ in columns]
        for _ in range(rng.randint(3, 9))
    ]
    if rng.random() < 0.5:
        lines = [
            "| " + " | ".join(columns) + " |",
            "|" + "---|" * len(columns),
            *("| " + " | ".join(row) + " |" for row in rows),
        ]
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
    if rng.random() < 0.5:
        frames = [
            f'  File "/srv/app/{rng.choice(_THINGS)}/{rng.choice(_VERBS)}.py", line {rng.randint(1, 900)}, in {rng.choice(_VERBS)}_{rng.choice(_THINGS)}\n    return self._{rng.choice(_THINGS)}[{rng.choice("ijk")}]'
            for _ in range(rng.randint(3, 9))
        ]
        return "Traceback (most recent call last):\n" + "\n".join(frames) + f"\nKeyError: {rng.randint(1, 999)}"
    frames = [
        f"\tat com.example.{rng.choice(_THINGS)}.{rng.choice(_THINGS).title()}Service$${rng.choice(['Proxy', 'Lambda'])}${rng.randint(1, 99)}.{rng.choice(_VERBS)}({rng.choice(_THINGS).title()}Service.java:{rng.randint(1, 900)})"
        for _ in range(rng.randint(3, 12))
    ]
    return 'Exception in thread "main" java.lang.IllegalStateException: closed\n' + "\n".join(frames)


def _json(rng: random.Random) -> str:
    value = {
        "id": rng.randint(1, 10**9),
        "sku": f"{rng.choice('ABCDEFGH')}{rng.randint(10, 99)}-{rng.randbytes(3).hex().upper()}",
        "items": [
            {"n": rng.choice(_THINGS), "q": rng.randint(1, 9), "p": round(rng.random() * 90, 2)}
            for _ in range(rng.randint(2, 6))
        ],
        "note": rng.choice(("caf\u00e9", "gr\u00fc\u00dfe", "ol\u00e9", "plain")),
        "etag": rng.randbytes(12).hex(),
    }
    return rng.choice(_ASKS) + " " + json.dumps(value, indent=rng.choice((None, 2)), ensure_ascii=rng.random() < 0.5)


def _keys(rng: random.Random) -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    claims = (
        base64.urlsafe_b64encode(json.dumps({"sub": str(rng.randint(1, 10**9)), "iat": 1796000000}).encode())
        .decode()
        .rstrip("=")
    )
    token = f"{header}.{claims}.{base64.urlsafe_b64encode(rng.randbytes(32)).decode().rstrip('=')}"
    key = "ssh-ed25519 " + base64.b64encode(rng.randbytes(51)).decode()
    return rng.choice(
        (
            f"Is this token still valid? {token}",
            f"Add this key to the server:\n{key} {rng.choice(_NAMES).lower()}@laptop",
            f"sha256:{rng.randbytes(32).hex()}  image.tar",
        )
    )


def _maths(rng: random.Random) -> str:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return rng.choice(
        (
            f"Solve x² − {a}x + {b} = 0 and say whether Δ > 0, please.",
            f"Let f(x) = ∫₀^{a} e^(−t²) dt. Show that f′(x) ≤ 1 for all x ∈ ℝ.",
            f"If α + β = π/{a} and ρ = {b} kg/m³, what is F = ρ·g·V for V = {a} m³ at {b} °C?",
            f"Simplify: a b c + a b d − b c d, where a = {a}, b = {b}, c = 1 and d = 2.",
            rf"Prove $\sum_{{i=1}}^{{n}} i^2 = \frac{{n(n+1)(2n+1)}}{{6}}$ for n = {a} first, then for all $n \in \mathbb{{N}}$.",
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


def _names(rng: random.Random) -> str:
    return "\n".join(
        f"{rng.choice(_NAMES)} {rng.choice(_NAMES)[0]}. {rng.choice(('Kowalczyk', 'Nguyễn', 'Øster', 'Szczepański', 'Þórsdóttir', 'García', 'Mbeki', 'O’Neill', 'Strčprst'))}, "
        f"{rng.choice(_PLACES)}, +{rng.randint(30, 99)} {rng.randint(100, 999)} {rng.randint(100000, 999999)}, {rng.choice(_NAMES).lower()}{rng.randint(1, 99)}@example.org"
        for _ in range(rng.randint(3, 8))
    )


def _urls(rng: random.Random) -> str:
    paths = [
        f"https://{rng.choice(_THINGS)}.example.com/{rng.choice(_VERBS)}/{rng.randbytes(6).hex()}?utm_source={rng.choice(_THINGS)}&id={rng.randint(1, 9999)}#s{rng.randint(1, 9)}"
        for _ in range(rng.randint(1, 5))
    ]
    return rng.choice(_ASKS) + " " + " ".join(paths)


def _products(rng: random.Random) -> str:
    codes = [
        "B2B",
        "MP3",
        "H264",
        "S3",
        "k8s",
        "i18n",
        "x86_64",
        "UTF-8",
        "IPv6",
        "COVID-19",
        "1st",
        "2nd",
        "4K",
        "5G",
        "RTX4090",
        "E5-2690v4",
        "A4",
        "30th",
        "3D",
        "V8",
        "C++",
        "m²",
        "AC/DC",
        "R2-D2",
        "U.S.A.",
        "e.g.",
        "p.m.",
    ]
    return (
        "I need "
        + ", ".join(f"{rng.choice(codes)} {rng.choice(_THINGS)}" for _ in range(rng.randint(3, 9)))
        + " by 5 p.m. – which first?"
    )


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
