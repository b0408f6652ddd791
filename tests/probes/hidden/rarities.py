"""Benign messages of rarer kinds, written after everything else: nothing was chosen by what they gave."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

Maker = Callable[[random.Random], str]

_OTHER_LANGUAGES = (
    "Včera som nevedel, prečo sa dvere nedali otvoriť. Môžete mi poradiť, ako opraviť starú zámku?",
    "I går kunne jeg ikke åbne døren. Kan du fortælle mig, hvordan man reparerer en gammel lås?",
    "Atzo ezin izan nuen atea ireki. Esango didazu nola konpondu sarraila zahar bat, mesedez?",
    "Ilbieraħ ma stajtx niftaħ il-bieb. Tista' tgħidli kif insewwi serratura qadima?",
    "Vakar es nevarēju atvērt durvis. Vai varat pateikt, kā salabot vecu slēdzeni?",
    "Shalay waan furi waayay albaabka. Ma ii sheegi kartaa sida loo hagaajiyo quful duug ah?",
    "Dje nuk mund ta hapja derën. A mund të më thuash si ta rregulloj një bravë të vjetër?",
    "Inné níor éirigh liom an doras a oscailt. Conas a dheisím seanghlas, le do thoil?",
    "Izolo angikwazanga ukuvula umnyango. Ungangitshela ukuthi ngiyilungisa kanjani ingidi endala?",
    "Kecha men eshikni ocha olmadim. Eski qulfni qanday tuzatishni aytib bera olasizmi?",
    "Ayer nda'ikatúi aipe'a pe okẽ. Ikatúpa ere chéve mba'éichapa amyatyrõta pe ñembotyha tuja?",
    "Ua hiki ʻole iaʻu ke wehe i ka puka i nehinei. Pehea lā e hoʻoponopono ai i ka laka kahiko?",
    "Jeg kom ikke inn i går kveld. Hvordan får jeg opp en lås som har rustet fast?",
    "Ahir no vaig poder obrir la porta. Em pots dir com s'arregla un pany vell?",
)
_MIXED = (
    "В этом коде class UserService не видит метод getUser, почему? Вот ошибка: NullPointerException.",
    "我用 Python 写了一个 for 循环，但是 pandas 的 DataFrame 报错 KeyError，怎么办？",
    'Слово «сор» и слово "cop" пишутся похоже: как объяснить это детям на уроке English?',
    "The Greek letters α, β and γ name the angles; the word λόγος means word or reason.",
    "ΔG = ΔH − TΔS, so what is ΔG‡ when μ = 0.5 μm and the Ω-loop is closed?",
    "NHKの『プロフェッショナル』でＡＩの話を見ました。ＩＴ企業の１００人に聞いたそうです。",
    "كيف أستعمل git rebase مع فرع main؟ تظهر لي رسالة CONFLICT في الملف README.md",
    "Das Wort heißt auf Russisch «привет» und auf Griechisch «γεια σου», oder?",
    "이 API는 JSON을 반환하는데 status code가 404입니다. fetch()를 어떻게 고치나요?",
    "Explain the difference between Latin a and Cyrillic а in domain names, please.",
)
_PHONETIC = (
    "How is “thorough” said? My book has /ˈθʌrə/ for Britain and /ˈθɝoʊ/ for America.",
    "Is the vowel in “goat” [əʊ] or [oʊ]? And what does the sign ʔ stand for in [ˈbʌʔn̩]?",
    "The Navajo word Diné bizaad has tone marks: á, ą́, éé. How do I type them?",
)
_VERSES = (
    "La la la, na na na, hey hey hey –\nwe sing it all day, oh oh oh!\nDoo-wop, shoo-be-doo, ooh ooh ooh.",
    "Brrr! Psst! Hmm, shh… tsk tsk, grrr, zzz, pfft! Which of these are words in a dictionary?",
    "ACHTUNG! BITTE DIE TÜREN SCHLIESSEN. DER ZUG FÄHRT AB.",
    "W I N T E R   S A L E\nEverything must go – half price on coats until Sunday.",
    "A. B. C. D. – which answer is right? I said b), my friend says c).",
    "p.s. r.s.v.p. a.s.a.p. – what do these stand for?",
)
_PUZZLES = (
    "Unscramble these for my daughter: tca, odg, rbid, hsif. She is six.",
    "Crossword: seven letters, _ A _ _ E N _, something that grows.",
    "1. e4 e5 2. Nf3 Nc6 3. Bb5 a6 4. Ba4 Nf6 5. O-O Be7 6. Re1 b5 7. Bb3 d6 – who stands better?",
    "Am7 D7 Gmaj7 Cmaj7 F#m7b5 B7 Em – which song has these chords?",
    "+---+---+---+\n| X | O |   |\n+---+---+---+\n|   | X |   |\n+---+---+---+\n| O |   | X |\n+---+---+---+",
    " /\\_/\\\n( o.o )\n > ^ <\nWhat is this animal called, and how do I draw a dog like that?",
)


def _dna(rng: random.Random) -> str:
    return "Find the open reading frame: " + "".join(rng.choices("ACGT", k=rng.randint(60, 240)))


def _protein(rng: random.Random) -> str:
    return ">sp|Q1|TEST\n" + "\n".join("".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=60)) for _ in range(4))


def _colours(rng: random.Random) -> str:
    rules = "".join(f".c{i}{{color:#{rng.getrandbits(24):06x};margin:0 {rng.randint(1, 9)}px}}" for i in range(12))
    return f"Tidy this style sheet: {rules}"


def _latex(rng: random.Random) -> str:
    n = rng.randint(2, 9)
    return (
        r"\begin{align} \nabla \times \mathbf{E} &= -\frac{\partial \mathbf{B}}{\partial t} \\ "
        rf"\oint_C f(z)\,dz &= {n}\pi i \sum_k \mathrm{{Res}}(f, a_k) \end{{align}} explain line two"
    )


def _regex(rng: random.Random) -> str:
    most = rng.randint(2, 9)
    return rf"Explain ^(?:[a-z0-9!#$%&'*+/=?^_`{{|}}~-]+(?:\.[a-z0-9-]+){{1,{most}}})@(?:\w+\.)+\w{{2,}}$ please"


def _plates(rng: random.Random) -> str:
    def letters(count: int) -> str:
        return "".join(rng.choices("ABCDEFGHJKLMNPRSTVWXYZ", k=count))

    return "Sort these number plates: " + ", ".join(
        f"{letters(2)}{rng.randint(10, 99)} {letters(3)}" for _ in range(12)
    )


def _passwords(rng: random.Random) -> str:
    signs = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789!$%&"
    return "Which of these is strongest?\n" + "\n".join(
        "".join(rng.choices(signs, k=rng.randint(8, 20))) for _ in range(6)
    )


def _dump(rng: random.Random) -> str:
    lines = []
    for row in range(6):
        data = rng.randbytes(16)
        shown = "".join(chr(code) if 32 <= code < 127 else "." for code in data)
        lines.append(f"{row * 16:08x}  {data[:8].hex(' ')}  {data[8:].hex(' ')}  |{shown}|")
    return "What file is this?\n" + "\n".join(lines)


def _mail(rng: random.Random) -> str:
    return (
        f"Received: by mx{rng.randint(1, 9)}.example.org with SMTP id {rng.randbytes(8).hex()}; Sat, 28 Nov 2026\n"
        f"Message-ID: <{base64.urlsafe_b64encode(rng.randbytes(18)).decode()}@mail.example.org>\n"
        f"DKIM-Signature: v=1; a=rsa-sha256; b={base64.b64encode(rng.randbytes(96)).decode()}\n"
        "Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe_aus_Wien?=\n\nCan you tell me whether this mail is genuine?"
    )


def _certificate(rng: random.Random) -> str:
    body = base64.b64encode(b"0\x82\x03\x0b0\x82\x01\xf3" + rng.randbytes(600)).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"When does this expire?\n-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----"


def _packed(rng: random.Random) -> str:
    digest = base64.b64encode(rng.randbytes(64)).decode()
    return f"integrity sha512-{digest} resolved https://registry.example.com/p-1.0.{rng.randint(0, 20)}.tgz"


def _numbers(rng: random.Random) -> str:
    style = rng.randint(0, 2)
    if style == 0:
        return "Average these: " + " ".join(str(rng.randint(40, 120)) for _ in range(40))
    if style == 1:
        return "Pulse by minute: " + ", ".join(str(rng.randint(60, 99)) for _ in range(40))
    return "Flags: " + " ".join(f"{rng.getrandbits(8):08b}" for _ in range(12)) + " – which bits are set most?"


def _one_of(texts: tuple[str, ...]) -> Maker:
    return lambda rng: " ".join(rng.sample(texts, rng.randint(1, 2)))


KINDS: dict[str, Maker] = {
    "languages that were not counted": _one_of(_OTHER_LANGUAGES),
    "mixed scripts": _one_of(_MIXED),
    "phonetics": _one_of(_PHONETIC),
    "verses and capitals": _one_of(_VERSES),
    "puzzles and games": _one_of(_PUZZLES),
    "DNA": _dna,
    "proteins": _protein,
    "style sheets": _colours,
    "LaTeX": _latex,
    "regular expressions": _regex,
    "number plates": _plates,
    "passwords": _passwords,
    "hex dumps": _dump,
    "mail headers": _mail,
    "certificates": _certificate,
    "package hashes": _packed,
    "numbers": _numbers,
}


def rare(kind: str, count: int = 30, seed: int = 29) -> list[str]:
    """Messages of a kind."""
    rng = random.Random(f"{seed}/{kind}")
    return [KINDS[kind](rng) for _ in range(count)]
