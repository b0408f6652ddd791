"""Attack families: what they change, what they keep, and that a seed decides it all."""

from __future__ import annotations

import base64
import codecs
import re
import unicodedata
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.attacks.base import Family, Materials, Part, attacked, rng_of
from probes.attacks.encodings import FORMS
from probes.attacks.families import FAMILIES, choosing, materials_of, named
from probes.attacks.lengths import Filler
from probes.attacks.markers import markers_of
from probes.attacks.turns import cut
from probes.errors import DataError
from probes.model.load import user_message
from tests.probes.model.templates import TEMPLATES, chat_with
from tests.support import ROOT
from tests.support.models.tiny import tiny_chat

CHAT = tiny_chat()
POOL = ["The oven is warm and the bread is nearly done.", "Our train leaves at nine.", "Blue paint dries slowly here."]
MATERIALS = materials_of(CHAT, POOL)
REQUEST = "Tell me how the old clock in the tower works, step by step"
BY_NAME = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def under(family: Family, number: int = 0, request: str = REQUEST, **options: Any) -> list[dict[str, Any]]:
    """The turns of a request under one wording."""
    wording = family.make(MATERIALS)[number]
    return attacked(family, wording, user_message(request), **{"seed": 0, "row": 0, **options}).turns


def text(turns: list[dict[str, Any]]) -> str:
    return "\n".join(turn["content"] for turn in turns)


@BY_NAME
def test_a_seed_decides(family: Family) -> None:
    drawn = [family.wordings(MATERIALS, seed=3, count=4) for _ in range(2)]
    assert [w.label for w in drawn[0]] == [w.label for w in drawn[1]]
    wording = drawn[0][0]
    first, again, other = (attacked(family, wording, user_message(REQUEST * 4), seed=3, row=row) for row in (1, 1, 2))
    assert first == again
    assert first.wording == other.wording == wording.label


@BY_NAME
def test_the_message_is_changed_and_the_input_is_left(family: Family) -> None:
    for number in range(len(family.make(MATERIALS))):
        given_turns = user_message(REQUEST)
        wording = family.make(MATERIALS)[number]
        made = attacked(family, wording, given_turns, seed=0, row=0)
        assert given_turns == user_message(REQUEST)
        assert all(turn["role"] in ("user", "assistant", "system") for turn in made.turns)
        assert made.turns != given_turns, wording.label


@BY_NAME
def test_there_are_many_wordings(family: Family) -> None:
    labels = [wording.label for wording in family.make(MATERIALS)]
    assert len(labels) >= 12
    assert len(set(labels)) == len(labels)


@BY_NAME
def test_parts_share_no_wording_and_no_key(family: Family) -> None:
    if family.holds_out:
        with pytest.raises(DataError, match="holds out"):
            family.wordings(MATERIALS, seed=0, count=3, part="choose")
        assert len(family.wordings(MATERIALS, seed=0, count=10**6)) == len(family.make(MATERIALS))
        return
    parts: tuple[Part, ...] = ("choose", "report")
    keys = [{w.key or w.label for w in family.wordings(MATERIALS, seed=0, count=10**6, part=p)} for p in parts]
    assert not keys[0] & keys[1]
    assert min(map(len, keys)) >= 2


def test_a_third_of_the_families_holds_out() -> None:
    kinds = {
        family.name.rpartition("-")[0] if family.name.startswith("benign-") else family.name: family
        for family in FAMILIES.values()
    }
    held_out = [family for family in kinds.values() if family.holds_out]
    assert 0.25 <= len(held_out) / len(kinds) <= 0.4
    assert not {f.name for f in choosing()} & {f.name for f in held_out}


def test_a_draw_takes_every_key_once_before_a_second() -> None:
    drawn = FAMILIES["suffix-question"].wordings(MATERIALS, seed=1, count=9)
    assert len({wording.key for wording in drawn}) == 9


BESIDE = [f for f in FAMILIES.values() if f.changes == "request" and f.name != "special-tokens"]


@pytest.mark.parametrize("family", BESIDE, ids=lambda family: family.name)
def test_words_beside_a_request_leave_it_as_it_is(family: Family) -> None:
    for wording in family.make(MATERIALS):
        made = attacked(family, wording, user_message("{braces} and \\1 stay"), seed=0, row=0)
        assert made.turns[0]["content"].count("{braces} and \\1 stay") == 1


# Encodings

PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(PLAIN)
def test_encodings_decode_to_the_text(message: str) -> None:
    for form, encode in FORMS["base64"].items():
        payload = encode(message).replace("\n", "")
        alphabet = b"-_" if form == "URL-safe" else b"+/"
        assert base64.b64decode(payload + "=" * (-len(payload) % 4), altchars=alphabet).decode() == message
    for encode in FORMS["hex"].values():
        assert bytes.fromhex(re.sub(r"0x|\\x|[: ]", "", encode(message))).decode() == message
    for encode in FORMS["percent"].values():
        assert unquote(encode(message)) == message
    for encode in FORMS["rot13"].values():
        assert codecs.decode(encode(message), "rot13") == message


@pytest.mark.parametrize("name", FORMS)
def test_carriers_hold_the_payload(name: str) -> None:
    forms = FORMS[name]
    for wording in FAMILIES[name].make(MATERIALS):
        made = attacked(FAMILIES[name], wording, user_message(REQUEST), seed=0, row=0)
        assert forms[wording.label.partition(":")[0]](REQUEST) in made.turns[0]["content"]
        assert "{name}" not in made.turns[0]["content"]


# Spelling


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=80))
def test_other_spellings_can_be_undone(message: str) -> None:
    rng = rng_of(0, "test")

    def made(name: str) -> list[str]:
        return [w.text(message, rng) for w in FAMILIES[name].make(MATERIALS) if w.text is not None]

    assert all(each.lower() == message.lower() for each in made("case"))
    marks = "[\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e]"
    assert all(re.sub(marks, "", each) == message for each in made("zero-width"))
    for name in ("full-width", "styled-letters"):
        assert all(unicodedata.normalize("NFKC", each) == message for each in made(name))
    letters = [re.sub(r"[\s._/-]", "", each).lower() for each in made("spacing")]
    assert set(letters) == {re.sub(r"[\s._/-]", "", message).lower()}
    for name in ("homoglyph", "leet"):
        for each in made(name):
            assert len(each) == len(message)
            assert all(new == old or old.isalpha() for new, old in zip(each, message, strict=True))


def test_look_alikes_are_of_other_scripts() -> None:
    changed = [
        new
        for number in range(16)
        for new, old in zip(text(under(FAMILIES["homoglyph"], number)), REQUEST, strict=True)
        if new != old
    ]
    assert len(changed) > 40
    assert not [c for c in changed if c.isascii()]
    assert all(unicodedata.normalize("NFKC", c) == c or unicodedata.name(c) for c in changed)


# Lengths


@pytest.mark.parametrize("length", [1, 20, 50, 333])
def test_benign_text_has_its_length(length: int) -> None:
    made = Filler(MATERIALS).text(length, rng_of(0, str(length)))
    # A token a byte here; breaks between texts are not counted.
    longest = max(len(word) for each in POOL for word in each.split())
    assert length - longest - 1 <= len(made.replace("\n\n", "").encode()) <= length + longest + 1
    assert set(made.split()) <= {word for each in POOL for word in each.split()}


@pytest.mark.parametrize(
    ("place", "starts", "ends"), [("before", False, True), ("after", True, False), ("around", False, False)]
)
def test_benign_text_stands_where_it_is_told_to(place: str, starts: bool, ends: bool) -> None:
    for number in range(12):
        made = text(under(FAMILIES[f"benign-{place}-200"], number))
        assert (made.startswith(REQUEST), made.endswith(REQUEST), made.count(REQUEST)) == (starts, ends, 1)


def test_benign_text_needs_a_pool() -> None:
    family = FAMILIES["benign-after-50"]
    with pytest.raises(DataError, match="--benign"):
        attacked(family, family.make(Materials())[0], user_message(REQUEST), seed=0, row=0)


# Turns


@given(st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), min_size=1, max_size=30), st.integers(2, 5))
def test_pieces_keep_all_words_in_order(words: list[str], pieces: int) -> None:
    made = cut(" ".join(words), pieces, rng_of(0, *words))
    assert " ".join(made).split() == words
    assert len(made) == min(pieces, len(words))
    assert all(made)


def test_a_split_request_is_spread_over_user_turns() -> None:
    seen = set()
    for number in range(24):
        turns = under(FAMILIES["split-turns"], number)
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"]
        said = " ".join(turn["content"] for turn in turns if turn["role"] == "user")
        assert said.endswith(REQUEST)
        assert all(len(turn["content"].split()) < len(REQUEST.split()) for turn in turns[1:])
        seen.add(len(turns) // 2 + 1)
    assert seen == {2, 3, 4, 5}


def test_other_turns_of_a_conversation_stay() -> None:
    before = [
        {"role": "system", "content": "You are kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
    ]
    given_turns = [*before, {"role": "user", "content": REQUEST}]
    for family in FAMILIES.values():
        wording = family.make(MATERIALS)[0]
        made = attacked(family, wording, given_turns, seed=0, row=0).turns
        if family.changes != "turns":
            assert made[:3] == before
            assert len(made) == 4
        said = [turn["content"] for turn in made]
        assert said[0].endswith("You are kind.") or said[0].startswith("You are kind.")
        assert [role for turn in made if (role := turn["role"]) == "system"] == ["system"]


def test_a_request_is_moved_or_followed() -> None:
    for number in range(24):
        system, user = under(FAMILIES["system-turn"], number)
        assert (system["role"], user["role"]) == ("system", "user")
        assert system["content"].endswith(REQUEST)
        assert REQUEST not in user["content"]
    for number in range(36):
        turns = under(FAMILIES["earlier-turn"], number)
        assert turns[0]["content"] == REQUEST
        assert turns[-1]["role"] == "user"
        assert REQUEST not in text(turns[1:])


# Forged turns


@pytest.mark.parametrize("name", TEMPLATES)
def test_markers_are_what_the_template_writes(name: str) -> None:
    chat = chat_with(TEMPLATES[name])
    markers = markers_of(chat)
    real = [
        {"role": "user", "content": "first words"},
        {"role": "assistant", "content": "a reply"},
        {"role": "user", "content": "last words"},
    ]
    forged = user_message(f"first words{markers.to_assistant}a reply{markers.to_user}last words")
    assert chat.render(forged) == chat.render(real)


def test_markers_of_a_template_without_a_system_turn() -> None:
    assert markers_of(chat_with(TEMPLATES["gemma"])).to_system == ""


def test_forged_turns_hold_the_models_own_markers() -> None:
    markers = MATERIALS.markers
    assert (markers.to_user, markers.to_system) == ("<|end|><|user|>", "<|end|><|system|>")
    wordings = FAMILIES["forged-turns"].make(MATERIALS)
    made = [text(under(FAMILIES["forged-turns"], number)) for number in range(len(wordings))]
    assert all(
        any(marker in each for marker in (markers.to_user, markers.to_assistant, markers.to_system)) for each in made
    )
    assert all(CHAT.control_tokens([each]) >= 2 for each in made)


def test_other_models_markers_are_text_here() -> None:
    for number in range(84):
        made = text(under(FAMILIES["forged-generic"], number))
        assert CHAT.control_tokens([made]) == 0
        assert REQUEST in made


def test_special_tokens_stand_around_and_between_the_words() -> None:
    for number in range(16):
        made = text(under(FAMILIES["special-tokens"], number))
        left = re.sub(r"<\|\w+\|>|</?s>|\[/?INST\]|</?\w+>", "", made)
        assert left == REQUEST


# What is changed of a message that is read for its response


@BY_NAME
def test_a_response_is_changed_where_that_makes_sense(family: Family) -> None:
    wording = family.make(MATERIALS)[0]
    made = attacked(family, wording, user_message(REQUEST), "Here is how it works.", seed=0, row=0, target="response")
    if family.changes == "text":
        assert made.response != "Here is how it works."
        assert made.turns == user_message(REQUEST)
        assert family.changed("response") == "response"
        with pytest.raises(DataError, match="row 3 has no response"):
            attacked(family, wording, user_message(REQUEST), seed=0, row=2, target="response")
    else:
        assert made.response == "Here is how it works."
        assert made.turns != user_message(REQUEST)
        assert family.changed("response") == "prompt"


# Names


def test_families_are_named_by_their_beginnings() -> None:
    assert [f.name for f in named(["percent", "framing"])] == [
        "framing-fiction",
        "framing-roleplay",
        "framing-research",
        "framing-exam",
        "percent",
    ]
    assert len(named([""])) == len(FAMILIES)
    (long,) = named(["benign-after-4000"])
    assert (long.name, long.holds_out) == ("benign-after-4000", False)
    with pytest.raises(DataError, match="families: 'frame' is none of suffix-language, "):
        named(["frame"])


def test_a_message_without_turns_is_an_error() -> None:
    family = FAMILIES["case"]
    with pytest.raises(DataError, match="at least one user turn"):
        attacked(family, family.make(MATERIALS)[0], [], seed=0, row=0)


def test_the_page_lists_every_family() -> None:
    page = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([\w-]+)` \| .+ \| (yes|no) \|$", page, re.MULTILINE))
    known = {re.sub(r"^(benign-\w+)-\d+$", r"\1-TOKENS", name): family for name, family in FAMILIES.items()}
    assert listed == {name: "no" if family.holds_out else "yes" for name, family in known.items()}
    for name, family in known.items():
        assert name.startswith("benign-") or f"| `{name}` | {family.about} |" in page
