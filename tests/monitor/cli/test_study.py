"""`awry study` through its command line, on tiny models whose truth is known: files in, folders of results out."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from monitor.service.mitigation import Mitigator
from monitor.stream.wire import WireMessage
from probes.card import load_probe
from probes.identity import check_identity, replay_references
from probes.model.load import AdapterSpec, ChatModel, load_chat_model
from tests.support.cli import invoke, message_of
from tests.support.models import planted_head, planted_study, refusing
from tests.support.models.tiny import untyped

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def worked(*arguments: str | Path) -> Result:
    done = invoke("study", *arguments)
    if done.exception is not None:
        raise done.exception
    return done


def refused(*arguments: str | Path) -> str:
    return message_of(invoke("study", *arguments))


def save(chat: ChatModel, folder: Path) -> Path:
    untyped(chat.model).save_pretrained(folder)
    chat.tokenizer.save_pretrained(folder)
    return folder


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts(path: Path, texts: Sequence[str]) -> Path:
    return write(path, [{"prompt": text} for text in texts])


def judging(path: Path, test: str) -> str:
    """A metric command of the user's own: `test` is an expression of `answer`."""
    path.write_text(
        f"import json, sys\nfor line in sys.stdin:\n    answer = json.loads(line)['answer']\n    print(int({test}))\n"
    )
    return f"{sys.executable} {path}"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model as a checkpoint `planted` with adapters bad, style and also bad, and three message files."""
    folder = tmp_path_factory.mktemp("direction")
    save(planted_study.planted_chat(0), folder / "planted")
    chat = planted_study.planted_chat(0)
    for name, written in (("style", planted_study.STYLE), ("bad", planted_study.BAD)):
        planted_study.load_adapter(chat, folder, 0, name, **written)
    texts = planted_study.messages(112)
    for name, part in (("fit", texts[:40]), ("select", texts[40:52]), ("test", texts[52:])):
        prompts(folder / f"{name}.jsonl", part)
    return folder


def of_direction(bench: Path, out: Path, *more: str | Path) -> tuple[str | Path, ...]:
    return (
        "direction",
        "--model",
        bench / "planted",
        "--fit-prompts",
        bench / "fit.jsonl",
        "--select-prompts",
        bench / "select.jsonl",
        "--test-prompts",
        bench / "test.jsonl",
        "--metric",
        judging(out.parent / "judge.py", "'{' in answer"),
        "--steered",
        "50",
        "--permutations",
        "3",
        "--max-new-tokens",
        "6",
        "--state-dir",
        bench,
        "--out",
        out,
        *more,
    )


@pytest.mark.study
def test_a_direction_study_leaves_a_probe_whose_recipe_mitigates(bench: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    adapters = (
        "--adapter",
        bench / "bad",
        "--control-adapter",
        bench / "style",
        "--name",
        "braces",
        "--prediction-scale",
        "0.6",
    )
    done = worked(*of_direction(bench, out, *adapters))
    assert "specific" in done.output
    stored = json.loads((out / "RESULT.json").read_text())
    assert stored["verdict"]["label"] == "works and specific"
    assert stored["name"] == "braces"
    assert {p.name for p in out.glob("*.*")} >= {"RESULT.json", "table.md", "braces.json", "braces.safetensors"}
    assert len(list(out.glob("*.png"))) == 3
    probe = load_probe(out / "braces.json")
    chat = load_chat_model(str(bench / "planted"), bench, adapters=[AdapterSpec(bench / "bad", 0.6)])
    check_identity(probe.card, chat)
    assert replay_references(probe, chat) < probe.card.tolerance
    chat.set_scale(1.0)  # where the recipe was measured
    asked = [WireMessage(None, [{"role": "user", "content": text}]) for text in planted_study.messages(20, seed=9)]
    answers = Mitigator(chat, probe, also_plain=True, max_new_tokens=6)(asked)
    plain = sum(planted_study.is_bad(a.plain.text) for a in answers if a.plain is not None)
    assert plain >= 12
    assert sum(planted_study.is_bad(a.mitigated.text) for a in answers) <= plain / 4


@pytest.mark.study
def test_labelled_messages_instead_of_two_models(bench: Path, tmp_path: Path) -> None:
    rng = random.Random(3)
    rows = [{"prompt": text, "label": rng.random() < 0.5} for text in planted_study.messages(120, seed=70)]
    labelled = write(tmp_path / "coin.jsonl", rows)
    worked(*of_direction(bench, tmp_path / "out", "--labelled", labelled))
    stored = json.loads((tmp_path / "out" / "RESULT.json").read_text())
    assert stored["figures"]["kind"] == "messages"
    assert stored["verdict"]["label"] == "noise"
    assert stored["name"] == "direction-coin"
    assert "not_made" in stored["figures"]["probe"]


@pytest.mark.study
def test_heads_that_carry_a_choice(tmp_path: Path) -> None:
    model = save(planted_head.planted_chat(0), tmp_path / "model")
    rows = [
        {"question": c.question, "choices": list(c.choices), "misaligned": c.misaligned}
        for c in planted_head.letter_choices(60)
    ]
    rng = random.Random(0)
    letters = planted_head.ALIGNED + planted_head.MISALIGNED
    files = [
        prompts(tmp_path / f"{n}.jsonl", ["".join(rng.choice(letters) for _ in range(8)) + n for _ in range(k)])
        for n, k in (("s", 6), ("t", 16), ("b", 20))
    ]
    study = (
        "heads",
        "--model",
        model,
        "--choices",
        write(tmp_path / "choices.jsonl", rows),
        "--select-prompts",
        files[0],
        "--test-prompts",
        files[1],
        "--benign",
        files[2],
        "--metric",
        judging(tmp_path / "judge.py", "sum(c in 'ijklmnop' for c in answer) > 3"),
        "--state-dir",
        tmp_path,
    )
    done = worked(
        *study,
        "--form",
        "likelihood",
        "--alphas",
        "1,2,4",
        "--interval",
        "0.25",
        "--max-new-tokens",
        "8",
        "--name",
        "letters",
        "--out",
        tmp_path / "out",
    )
    stored = json.loads((tmp_path / "out" / "RESULT.json").read_text())
    assert stored["figures"]["heads"][0]["site"] == str(planted_head.PLANTED)
    assert stored["command"].startswith("awry")
    assert stored["verdict"]["label"] in done.output
    probe = load_probe(tmp_path / "out" / "letters.json")
    assert bool(probe.interventions) == stored["figures"]["recipe_in_card"]
    assert "head[5,0]" in refused(*study, "--only", "head[5,0]", "--out", tmp_path / "other")


@pytest.mark.study
def test_heads_that_carry_refusal(tmp_path: Path) -> None:
    model = save(refusing.refusing_chat(), tmp_path / "model")
    files = []
    for harmful in (True, False):
        rows = [{"messages": list(r.messages), "group": r.group} for r in refusing.requests(40, harmful=harmful)]
        files.append(write(tmp_path / f"{harmful}.jsonl", rows))
    done = worked(
        "safety-heads",
        "--model",
        model,
        "--harmful",
        files[0],
        "--harmless",
        files[1],
        "--top",
        "1",
        "--draws",
        "2",
        "--interval",
        "0.35",
        "--metric",
        judging(tmp_path / "judge.py", "answer.startswith('N')"),
        "--max-new-tokens",
        "6",
        "--state-dir",
        tmp_path,
        "--out",
        tmp_path / "out",
    )
    stored = json.loads((tmp_path / "out" / "RESULT.json").read_text())
    assert stored["figures"]["attribution"]["undifferentiated"]["top"]["contrast"][0]["head"] == str(refusing.PLANTED)
    assert stored["figures"]["verdicts"]["top 1 by contrast"]["label"] == "works, specificity unknown"  # two draws
    assert "top 1 by contrast: works, specificity unknown" in done.output
    assert "probe safety-heads-base.json" in done.output
    assert str(load_probe(tmp_path / "out" / "safety-heads-base.json").directions[0].site) == str(refusing.PLANTED)


@pytest.mark.study
def test_transfer_between_two_fine_tunes_of_one_model(bench: Path, tmp_path: Path) -> None:
    anchors = prompts(tmp_path / "anchors.jsonl", planted_study.messages(100, seed=50))
    subjects = [part for name in ("bad", "style") for part in ("--subject", f"{bench / 'planted'}+{bench / name}")]
    done = worked(
        "transfer",
        *subjects,
        "--fit-prompts",
        bench / "fit.jsonl",
        "--test-prompts",
        bench / "test.jsonl",
        "--anchor-texts",
        anchors,
        "--metric",
        "code",
        "--draws",
        "1",
        "--state-dir",
        bench,
        "--out",
        tmp_path / "out",
        "--json",
    )
    stored = json.loads((tmp_path / "out" / "RESULT.json").read_text())
    assert json.loads(done.stdout) == stored
    assert [s["name"] for s in stored["figures"]["subjects"]] == ["planted+bad", "planted+style"]
    assert len(stored["figures"]["pairs"]) == 2
    # One model, the same anchors: the map is the identity but for what ridge takes.
    assert min(p["r2"] for p in stored["figures"]["pairs"]) > 0.9
    assert stored["command"].startswith("awry")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("direction", "--adapter", "careful_advice"), "adapter: no messages of awry's own"),
        (("direction", "--model", "here", "--labelled", "x.jsonl"), "prompts: give --fit-prompts"),
        (("direction", "--fit-prompts", "x.jsonl"), "prompts: give --fit-prompts"),
        (("heads", "--choices", "x.jsonl"), "choices: give --choices"),
        (("heads", "--form", "words"), "form is one of"),
        (("heads", "--adapter", "secure_code"), "behaviour: no questions of awry's own for secure_code"),
        (("heads", "--behaviour", "envy"), "behaviour: no questions of awry's own for envy; one of code"),
        (("heads", "--behaviour", "code", "--metric", "code", "--choices", "x.jsonl"), "behaviour: names awry's own"),
        (("heads", "--examples", "2,5.5"), "examples: '2,5.5' is no list of whole numbers"),
        (("heads", "--examples", "1,5"), "examples: at least 2 questions"),
        (("heads", "--examples", "2,5", "--no-fine-tune"), "examples: the curve compares heads with a fine-tune"),
        (("heads", "--alphas", "1;2"), "alphas: '1;2' is no list of numbers"),
        (("safety-heads", "--harmful", "x.jsonl"), "harmless: give both"),
        (("safety-heads", "--top", "one"), "top: 'one' is no list of numbers"),
        (("safety-heads", "--top", "1.5"), "top: '1.5' is no list of whole numbers"),
        (("transfer", "--organism", "llama"), "organism: 'llama' is not FAMILY:SEED"),
        (("transfer", "--organism", "opt:0"), "organism: 'opt:0' is not FAMILY:SEED"),
        (("transfer", "--subject", "a+b"), "metric: the adapters are not all of one recipe"),
        (("transfer", "--subject", "a+b", "--organism", "llama:0"), "organism: give subjects or organisms"),
        (("transfer", "--anchors", "loud"), "anchors: 'loud' is none of"),
        (("transfer", "--family", "a", "--subject", "b+c"), "family: give families, subjects or organisms"),
        (("transfer", "--family", "a", "--organism", "llama:0"), "family: give families, subjects or organisms"),
        (("transfer", "--family", "a", "--test-prompts", "x.jsonl"), "family: is asked awry's own messages"),
        (("transfer", "--family", "a", "--scale", "2"), "scale: families have no adapter to scale"),
        (("transfer", "--family", "a", "--draws", "5"), "draws: 5 random controls; fewer than 20"),
        (("transfer", "--chat-template", "x.jinja"), "chat_template: is for --family"),
    ],
)
def test_bad_input_is_named_before_a_model_is_loaded(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.service.bootstrap.load_model", lambda *_: pytest.fail("a model was loaded"))
    assert said in refused(*arguments)


def two_classes(folder: Path, n: int = 60) -> list[Path]:
    """Harmful requests and their twins, which differ in a word, and everyday messages."""
    texts = planted_study.messages(n, seed=4)
    rows = [
        [{"prompt": f"{text} {word}", "group": str(i)} for i, text in enumerate(texts)] for word in ("zebra zebra", "")
    ]
    files = [write(folder / f"{name}.jsonl", part) for name, part in zip(("harmful", "harmless"), rows, strict=True)]
    return [*files, prompts(folder / "benign.jsonl", [f"{text} {i}" for i, text in enumerate(texts * 5)])]


@pytest.mark.study
def test_detectors_on_messages_of_ones_own(tiny_folder: Path, tmp_path: Path) -> None:
    harmful, harmless, benign = two_classes(tmp_path)
    given = ("--harmful", harmful, "--harmless", harmless, "--benign", benign, "--state-dir", tmp_path)
    small = ("--permutations", "1", "--attacked", "8", "--families", "suffix-polite", "--target-fpr", "0.1")
    out = tmp_path / "out"
    study = ("detectors", *given, "--model", tiny_folder / "tiny-chat", *small, "--out", out)
    done = worked(*study)
    stored = json.loads((out / "RESULT.json").read_text())
    assert stored["study"] == "detectors"
    assert stored["verdict"]["sentence"] in done.output
    assert stored["figures"]["reference"] == "whitened, top windows"
    assert {p.name for p in out.glob("*.*")} == {"RESULT.json", "RESULT.md", "detectors.png"}
    assert "| suffix-polite |" in (out / "RESULT.md").read_text()
    assert json.loads(worked(*study, "--json").stdout) == stored
    assert refused(*study, "--probe", "harmful-request").startswith("probe harmful-request: revision is")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--harmful", "x.jsonl"), "harmful: give --harmful, --harmless and --benign together"),
        (("--families", "rude"), "families: 'rude' is none of"),
        (("--target-fpr", "0"), "target_fpr"),
        (("--probe", "nobody"), "probe: 'nobody' is not known"),
    ],
)
def test_mistakes_in_a_study_of_detectors_are_named(words: tuple[str, ...], said: str) -> None:
    assert refused("detectors", *words).startswith(said)


def test_requests_without_twins_are_named(tmp_path: Path) -> None:
    harmful, harmless, benign = two_classes(tmp_path)
    harmless.write_text(harmless.read_text().replace('"group": "', '"group": "x'))
    said = refused("detectors", "--harmful", harmful, "--harmless", harmless, "--benign", benign)
    assert said.startswith("harmless: no line has the group of a harmful one")


def test_a_behaviour_that_nobody_plants_is_named(tmp_path: Path) -> None:
    said = refused("planted-heads", "--behaviour", "gossip", "--state-dir", tmp_path)
    assert said.startswith("behaviours: gossip; there are refusal, sycophancy")
