"""How fast the head search tries all heads of a model, against one head at a time; same figures, one command.

How to run: `python -m benchmarks.head_search [--out docs/bench-heads.json] [--questions 4]`, on a machine that does
nothing else. `--quick` is a smoke test: few heads, one question.

Contract: SmolLM2-135M-Instruct, fp32 on the CPU, torch's default threads; every head with its own direction at one
alpha, on two-choice questions of `probes/organisms/data/choices_advice.jsonl`. By likelihood of the two choices:

- one head, one question: a steered forward over the two choices of one question, head after head
- one head, all questions: a steered forward over the choices of all questions in one padded batch, head after head
- heads together: many heads in one forward, each row with its own (`probes.heads.row_steering`), whole texts
- + shared prompt: the prompt's keys and values are computed once a question
- + shared depth: the pass starts at the lowest block that its heads touch; this is what the search does

By letters, the form that HSI's authors use (greedy, 8 tokens, both orders): one head after the other, all prompts of a
head in one batch, against many heads in one batch; on every `--letters-stride`-th head.

Every way's figures are compared with the first's; more than 1e-4 nats a token, or another letter, is a MISMATCH, and
the exit status is 1. Units: trials a second, a trial being one head on one question; ratios are to the second way of
likelihoods, the better one of one head at a time, and the first of letters. Ways take turns on two halves of the
heads, so that a machine's drift hits all alike.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import machine
from probes.binary_choice import BinaryChoice, misaligned_letter, parse_letter, render_choice, split_choices
from probes.capture.batches import collate, encode
from probes.capture.sites import head_sites
from probes.heads.choice_scoring import Share, SteeringTrial, letters, likelihoods, one_at_a_time
from probes.heads.search import joint, read_activations, site_directions
from probes.model import builtin
from probes.model.load import ChatModel, load_chat_model, user_message
from probes.organisms.messages import choices
from probes.steer.generation import generate
from probes.steer.steering import steering

Figures = NDArray[np.float64]  # (trials, questions, 2)
Way = Callable[[ChatModel, Sequence[BinaryChoice], Sequence[SteeringTrial]], Figures]
_TOLERANCE = 1e-4
_ALPHA = -15.0
_BUDGET = 1024
_HALVES = 2


@dataclass(frozen=True)
class Row:
    """One way: trials a second, the ratio to one head at a time, and how far its figures are from the first way's."""

    form: str
    name: str
    trials: int
    seconds: float
    per_s: float
    ratio: float
    largest_difference: float
    agrees: bool


def _one_question(chat: ChatModel, questions: Sequence[BinaryChoice], trials: Sequence[SteeringTrial]) -> Figures:
    return np.array([[one_at_a_time(chat, row, trial) for row in questions] for trial in trials])


def _all_questions(chat: ChatModel, questions: Sequence[BinaryChoice], trials: Sequence[SteeringTrial]) -> Figures:
    items = [
        encode(chat, user_message(row.question), row.text(misaligned=bad)) for row in questions for bad in (False, True)
    ]
    batch = collate(items, chat.device)
    counted = batch.response[:, 1:].float()
    means = []
    for trial in trials:
        with torch.inference_mode(), steering(chat, [s.intervention() for s in trial.shifts]) as state:
            state.begin([item.n_prompt for item in items])
            logits = chat.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
            gold = logits[:, :-1].float().log_softmax(-1).gather(2, batch.ids[:, 1:].unsqueeze(2)).squeeze(2)
        means.append(((gold * counted).sum(1) / counted.sum(1)).view(-1, 2).double().numpy())
    return np.array(means)


def _together(
    share: Share, chat: ChatModel, questions: Sequence[BinaryChoice], trials: Sequence[SteeringTrial]
) -> Figures:
    scores = [likelihoods(chat, row, trials, token_budget=_BUDGET, share=share) for row in questions]
    return np.stack(scores, 1)


def _single_letters(chat: ChatModel, questions: Sequence[BinaryChoice], trials: Sequence[SteeringTrial]) -> Figures:
    asked = [(row, swapped) for row in questions for swapped in (False, True)]
    prompts = [render_choice(chat, row, "letters", swapped=swapped) for row, swapped in asked]
    choices_made = []
    for trial in trials:
        with steering(chat, [s.intervention() for s in trial.shifts]) as state:
            letters_given = [parse_letter(a.text) for a in generate(chat, prompts, max_new_tokens=8, steered=state)]
        bad = [misaligned_letter(row, swapped=swapped) for row, swapped in asked]
        choices_made.append([-1.0 if a is None else float(a == b) for a, b in zip(letters_given, bad, strict=True)])
    return np.array(choices_made).reshape(len(trials), len(questions), 2)


def _letters_together(chat: ChatModel, questions: Sequence[BinaryChoice], trials: Sequence[SteeringTrial]) -> Figures:
    return np.stack([letters(chat, row, trials) for row in questions], 1)


# form -> its ways; the ratio is to the way of this name.
WAYS: dict[str, tuple[str, dict[str, Way]]] = {
    "likelihood": (
        "one head, all questions",
        {
            "one head, one question": _one_question,
            "one head, all questions": _all_questions,
            "heads together": partial(_together, "nothing"),
            "+ shared prompt": partial(_together, "prompt"),
            "+ shared depth": partial(_together, "depth"),
        },
    ),
    "letters": (
        "one head, all questions",
        {"one head, all questions": _single_letters, "heads together": _letters_together},
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write the JSON; 1 when a way's figures are not those of one head at a time."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.head_search", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, help="write the figures there as JSON")
    parser.add_argument("--questions", type=int, default=4, help="questions tried (default 4)")
    parser.add_argument(
        "--letters-stride", type=int, default=10, help="letters on every n-th head (default 10; 0: none)"
    )
    parser.add_argument("--quick", action="store_true", help="every 30th head, one question: does it run?")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    if options.questions < 1 or options.letters_stride < 0:
        parser.error("--questions must be at least 1, --letters-stride at least 0")
    from monitor.settings import default_state_dir

    chat = load_chat_model(builtin.SMOLLM2, default_state_dir(), dtype="float32", device="cpu")
    stride = 30 if options.quick else 1
    questions = list(split_choices(choices("advice")).search[: 1 if options.quick else options.questions])
    rows = _measure(chat, "likelihood", stride, questions)
    if options.letters_stride:
        rows += _measure(chat, "letters", options.letters_stride * (9 if options.quick else 1), questions[:2])
    report = {
        "rows": [asdict(row) for row in rows],
        "units": "per_s: trials (one head on one question) a second; ratio: to one head, all questions",
        "model": asdict(chat.identity),
        "questions": len(questions),
        "token_budget": _BUDGET,
        "machine": machine(),
        "command": " ".join(["python -m benchmarks.head_search", *given]),
        "quick": options.quick,
    }
    print(markdown(report))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(row.agrees for row in rows) else 1


def _measure(chat: ChatModel, form: str, stride: int, questions: Sequence[BinaryChoice]) -> list[Row]:
    layout = chat.layout
    heads = head_sites(layout)[::stride]
    directions = site_directions(read_activations(chat, questions, "likelihood", heads))
    trials = [joint(directions, [s], _ALPHA) for s in directions.by_site]
    against, ways = WAYS[form]
    seconds, worst = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for half in range(_HALVES):
        part = trials[half::_HALVES]
        expected: Figures | None = None
        for name, way in ways.items():
            started = time.perf_counter()
            figures = way(chat, questions, part)
            seconds[name] += time.perf_counter() - started
            expected = figures if expected is None else expected
            worst[name] = max(worst[name], float(np.abs(figures - expected).max()))
    done = len(trials) * len(questions)
    return [
        Row(form, name, done, spent, done / spent, seconds[against] / spent, worst[name], worst[name] <= _TOLERANCE)
        for name, spent in seconds.items()
    ]


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table and two lines below it."""
    lines = ["| form | way | trials | trials/s | ratio | largest difference |", "|---|---|---:|---:|---:|---:|"]
    for row in report["rows"]:
        difference = f"{row['largest_difference']:.1e}" + ("" if row["agrees"] else " MISMATCH")
        figures = f"{row['trials']} | {row['per_s']:.2f} | {row['ratio']:.2f} | {difference}"
        lines.append(f"| {row['form']} | {row['name']} | {figures} |")
    about = report["machine"]
    lines += [
        "",
        f"{report['model']['model']}, {report['questions']} questions (letters: at most 2), at most "
        f"{report['token_budget']} tokens a forward. Machine: {about['cpu']}, {about['cores']} cores, "
        f"{about['torch_threads']} threads, load {about['load_average_1_5_15_min'][0]} at the end.",
        f"Command: {report['command']}.",
    ]
    if report["quick"]:
        lines.append("--quick is a smoke test: its timings mean nothing.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
