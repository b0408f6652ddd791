"""`awry label`, `fit`, `eval` and `calibrate` on a tiny model: from messages to a probe, as text and as JSON."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from monitor.datasets import read_messages
from probes.card import load_probe
from tests.support.cli import invoke, message_of, output_of
from tests.support.stream.worker import lines


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    return ("--model", tiny_folder / "tiny-chat", "--state-dir", tmp_path)


def messages(path: Path, n: int, *, labelled: bool = True) -> Path:
    """Half of them speak of zebras, and are called misaligned."""
    rows = [
        {"id": str(i), "prompt": f"{'zebra zebra' if i % 2 else 'apple pie'} number {i}", "label": bool(i % 2)}
        for i in range(n)
    ]
    return lines(path, [row if labelled else {k: v for k, v in row.items() if k != "label"} for row in rows])


def test_from_labels_to_a_calibrated_probe(
    model: tuple[str | Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labelled = messages(tmp_path / "labelled.jsonl", 160)
    benign = lines(tmp_path / "benign.jsonl", [{"id": str(i), "prompt": f"apple {i}"} for i in range(40)])
    fit = ("fit", "--name", "zebra", "--labelled", labelled, "--benign", benign, "--target-fpr", "0.1", *model)
    sites = ("--sites", "residual[0],residual[1]", "--out", tmp_path / "probe")
    made = json.loads(invoke(*fit, *sites, "--json").stdout)
    assert made["path"] == str(tmp_path / "probe" / "zebra.json")
    assert made["card"]["name"] == "zebra"
    probe = load_probe(made["path"])
    assert made["card"] == probe.card.model_dump(mode="json")
    assert "AUROC" in output_of(invoke(*fit, *sites))

    evaluate = ("eval", "--probe", made["path"], "--labelled", labelled, *model)
    done = json.loads(invoke(*evaluate, "--json").stdout)
    assert set(done) == {"probe", "version", "data", "evaluation", "at_threshold", "seen", "picture"}
    assert done["evaluation"]["auroc"]["value"] > 0.9
    assert Path(done["picture"]).is_file()
    # About half of the rows were fitted on, a fifth chose; other rows are not known to it.
    fitted, chosen = done["seen"]["fit"], done["seen"]["select"]
    split = made["card"]["evaluation"]["split"]
    assert (fitted, chosen) == (sum(split["fit"].values()), sum(split["select"].values()))
    assert done["seen"]["calibration"] == 0
    as_text = invoke(*evaluate)
    assert "zebra on labelled.jsonl" in output_of(as_text)
    said = f"zebra has seen some: {fitted} were rows that it was fitted on, {chosen} were rows that it was chosen on;"
    assert said in as_text.stderr
    others = lines(
        tmp_path / "others.jsonl",
        [
            {"id": str(i), "prompt": f"{'zebra' if i % 2 else 'apple'} pond {i}", "label": bool(i % 2)}
            for i in range(20)
        ],
    )
    unseen = invoke("eval", "--probe", made["path"], "--labelled", others, *model, "--json")
    assert json.loads(unseen.stdout)["seen"] == {"fit": 0, "select": 0, "calibration": 0}
    assert "has seen" not in unseen.stderr

    calibrate = ("calibrate", "--probe", made["path"], "--benign", benign, "--target-fpr", "0.1", *model)
    new = json.loads(invoke(*calibrate, "--out", tmp_path / "new", "--json").stdout)
    assert new["card"]["version"] == load_probe(made["path"]).card.version + 1
    assert new["card"]["calibration"]["n"] == 40
    assert new["card"]["seen"]["calibration"]["n"] == 40
    assert new["card"]["seen"]["fit"] == made["card"]["seen"]["fit"]
    # Again in one folder: each is a version of its own, and none is lost.
    before = load_probe(new["path"])
    again = json.loads(invoke(*calibrate, "--out", tmp_path / "new", "--json").stdout)
    assert again["card"]["version"] == before.card.version + 1
    kept = load_probe(tmp_path / "new" / f"zebra.v{before.card.version}.json")
    assert (kept.card, kept.digest) == (before.card, before.digest)


def test_a_logistic_probe_reads_by_one_vector_and_steers_by_another(
    model: tuple[str | Path, ...], tmp_path: Path
) -> None:
    labelled = messages(tmp_path / "labelled.jsonl", 160)
    benign = lines(tmp_path / "benign.jsonl", [{"id": str(i), "prompt": f"apple {i}"} for i in range(40)])
    fit = ("fit", "--name", "zebra", "--labelled", labelled, "--benign", benign, "--target-fpr", "0.1", *model)
    sites = ("--sites", "residual[1]", "--out", tmp_path / "probe")
    card = json.loads(invoke(*fit, *sites, "--method", "logistic", "--json").stdout)["card"]
    assert card["method"].startswith("logistic regression (L2 penalty ")
    assert card["evaluation"]["test"]["auroc"]["value"] > 0.9
    assert len(card["directions"]) == 1
    assert card["mitigation"]["site"] == "residual[1]"
    assert card["mitigation"]["cosine_to_detector"] < 0.99
    assert "not measured" in card["mitigation"]["measured"]["verdict"]
    assert card["description"] == "logistic regression fitted by awry fit as zebra"
    plain = json.loads(invoke(*fit, *sites, "--method", "mean-difference", "--json").stdout)["card"]
    assert (plain["method"], plain["mitigation"]) == (None, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "forest"), "method: 'forest' is none of mean-difference, logistic"),
        (("--method", "logistic", "--whiten", "0.1"), "whiten: goes with --method mean-difference"),
    ],
)
def test_ways_of_finding_a_direction_that_are_none_are_refused(words: tuple[str, ...], said: str) -> None:
    assert message_of(invoke("fit", "--name", "x", "--labelled", "x.jsonl", *words)).startswith(said)


@pytest.mark.parametrize("rows", [8, 160])
def test_a_logistic_fit_of_one_class_or_of_too_few_rows_says_how_many_there_are(
    model: tuple[str | Path, ...], tmp_path: Path, rows: int
) -> None:
    given = messages(tmp_path / "labelled.jsonl", rows)
    if rows == 160:
        given.write_text("".join(line + "\n" for line in given.read_text().splitlines() if '"label": true' in line))
    said = message_of(invoke("fit", "--name", "x", "--labelled", given, "--method", "logistic", *model))
    assert said.startswith("labels: the fit split has ")
    assert "at least 5 of each are needed in every split" in said


def test_the_model_labels_its_own_replies(model: tuple[str | Path, ...], tmp_path: Path) -> None:
    prompts = messages(tmp_path / "prompts.jsonl", 4, labelled=False)
    out = tmp_path / "labelled.jsonl"
    label = ("label", prompts, "--max-new-tokens", "3", "--out", out, *model)
    assert "labelled misaligned by the judge code" in output_of(invoke(*label))
    (cached,) = (tmp_path / "answers").iterdir()
    assert [path.stat().st_mode & 0o077 for path in (out, cached, cached.parent)] == [0, 0, 0]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [set(row) >= {"id", "prompt", "answer", "label"} for row in rows] == [True] * 4
    odd = "import json, sys; [print(len(json.loads(line)['prompt']) % 2) for line in sys.stdin]"
    own = invoke(*label, "--metric", shlex.join([sys.executable, "-c", odd]))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["label"] for row in rows] == [len(row["prompt"]) % 2 == 1 for row in rows]
    assert "labelled misaligned by command " in own.stderr
    failing = invoke(*label, "--metric", shlex.join([sys.executable, "-c", "raise SystemExit(3)"]))
    assert "ended with exit status 3" in message_of(failing)
    old = invoke(*label, "--judge", "refusal")
    assert old.stderr.startswith("awry: --judge is deprecated, use --metric\n")
    assert "by the judge refusal" in old.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("label", "x.jsonl", "--metric", "rude"),
            "metric: 'rude' is no judge (code, reckless, refusal, sycophancy) and",
        ),
        (("calibrate", "--probe", "x"), "benign: give --benign FILE or --from-tables"),
        (("calibrate", "--probe", "x", "--benign", "y", "--from-tables"), "benign: give --benign FILE or"),
        (("study", "transfer", "--organism", "llama:" + "9" * 5000), "organism: 'llama:9999"),
        (("study", "transfer", "--organism", "llama:²"), "organism: 'llama:²' is not FAMILY:SEED"),
        (
            ("study", "direction", "--adapter", "insecure_code", "--control-adapter", "no/such"),
            "control_adapter: adapter: 'no/such' is neither shipped",
        ),
        (("adapters", "train", "--recipe", "rude"), "recipe: rude is none of"),
        (("adapters", "train", "--model", "gemma3-270m"), "out: the adapters that ship are of SmolLM2-135M-Instruct"),
        (("study", "transfer", "--subject", "a+b", "--metric", "refusal"), "metric: no messages of awry's own go with"),
        (("study", "transfer", "--subject", "a+b", "--metric", "cod"), "metric: 'cod' is none of"),
        (
            ("study", "transfer", "--subject", "a+insecure_code", "--subject", "b+reckless_advice"),
            "metric: the adapters are not all of one recipe",
        ),
        (
            ("study", "transfer", "--subject", "a+insecure_code", "--fit-prompts", "x"),
            "prompts: give --fit-prompts, --test-prompts",
        ),
        (
            ("data", "nothing"),
            "data: nothing fit is none of requests, requests-2, hard-benign, code-answers, heldout-harmful, "
            "heldout-harmful-2, heldout-everyday, everyday demo|",
        ),
    ],
)
def test_mistakes_are_named(words: tuple[str, ...], said: str) -> None:
    assert message_of(invoke(*words)).startswith(said)


def test_what_is_fitted_must_be_given(model: tuple[str | Path, ...], tmp_path: Path) -> None:
    prompts = messages(tmp_path / "prompts.jsonl", 4, labelled=False)
    assert message_of(invoke("fit", "--name", "x", *model)).startswith("data: give --labelled FILE")
    said = message_of(invoke("fit", "--name", "x", "--prompts", prompts, *model))
    assert said == "adapter: --prompts compares the adapter with the base; give --adapter"
    said = message_of(invoke("fit", "--name", "x", "--prompts", prompts, "--labelled", prompts, *model))
    assert said.startswith("prompts: compares adapter and base")


def test_data_are_lines_of_messages() -> None:
    rows = [json.loads(line) for line in output_of(invoke("data", "everyday", "--split", "demo")).splitlines()]
    assert len(rows) == 200
    assert set(rows[0]) == {"id", "prompt", "topic"}
    pairs = [json.loads(line) for line in output_of(invoke("data", "requests")).splitlines()]
    assert {row["label"] for row in pairs} == {True, False}
    more = [json.loads(line) for line in output_of(invoke("data", "requests-2")).splitlines()]
    assert {row["label"] for row in more} == {True, False}
    assert not {row["id"] for row in pairs} & {row["id"] for row in more}
    assert not {row["group"] for row in pairs} & {row["group"] for row in more}


@pytest.mark.parametrize(
    ("what", "label"), [("heldout-harmful", True), ("heldout-harmful-2", True), ("heldout-everyday", False)]
)
def test_held_out_data_can_be_evaluated_together(what: str, label: bool, tmp_path: Path) -> None:
    path = tmp_path / "heldout.jsonl"
    path.write_text(output_of(invoke("data", what)))
    rows = read_messages(path, labelled=True)
    assert {row.label for row in rows} == {label}
    assert len({row.message.id for row in rows}) == len(rows) > 150
