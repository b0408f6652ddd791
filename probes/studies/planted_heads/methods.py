"""Every method that names heads, as a score for each head: the larger, the more it is one of the behaviour's.

- `ships_ua`, `ships_sc`: mean Ships under undifferentiated attention and under scaling contribution, on prompts that
  call for the behaviour (arXiv 2410.13708 section 3.2)
- `contrast`: the same (UA) less its mean on prompts that do not
- `sahara`: the greedy group (arXiv 2410.13708 section 4.2) first, in its order, then the angles of its first step
- `hsi`: the effect of steering each head alone away from the behaviour on two-choice questions, and the best of them
  in the order of a re-test on other questions (arXiv 2502.05945; `probes.heads.search.first_stages`); a head that
  breaks the text is tried at half and at a quarter of the strength, and has no score where it breaks there too
- `probe`: the accuracy of a linear probe at each head's output, as ITI ranks heads
- `ablation`: how much less the behaviour's answer is preferred when the head's output is set to nothing: the
  yardstick, which measures what the others estimate

Contract: arrays are (layers, heads), NaN for a head without a score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from probes.binary_choice import BinaryChoice, render_choice
from probes.capture.batches import Encoded
from probes.capture.sites import head_sites
from probes.directions import Floats
from probes.heads.ablation import Ablation, switch
from probes.heads.attribution import head_effects, sahara
from probes.heads.choice_scoring import ChoiceScorer
from probes.heads.search import SearchPlan, first_stages, probe_accuracy, read_activations, site_directions
from probes.model.load import ChatModel

# What each is called on pages.
NAMES = {
    "ablation": "ablating each head in turn",
    "ships_ua": "Ships (UA)",
    "ships_sc": "Ships (SC)",
    "contrast": "Ships, harmful less benign",
    "sahara": "Sahara",
    "hsi": "HSI's first stages",
    "probe": "a probe ranking",
}
METHODS = tuple(NAMES)
PAPERS = ("ships_ua", "ships_sc", "sahara", "hsi")
YARDSTICK = "ablation"
# Rows of one forward pass of `ablation`.
_ROWS = 15


def ships_map(chat: ChatModel, items: Sequence[Encoded], ablation: Ablation) -> Floats:
    """Mean Ships of each head over prompts, in nats."""
    mean: Floats = head_effects(chat, items, ablation=ablation).kl.mean(0)
    return mean


def sahara_map(chat: ChatModel, items: Sequence[Encoded], steps: int) -> Floats:
    """Degrees of the first step, and the group's heads above all of them, the first highest."""
    found = sahara(chat, items, steps=steps)
    scores = found.angles[0].copy()
    top = float(np.nanmax(scores))
    for place, head in enumerate(found.heads):
        scores[head.layer, head.head] = top + len(found.heads) - place
    return scores


def hsi_map(
    chat: ChatModel, search: Sequence[BinaryChoice], retest: Sequence[BinaryChoice], plan: SearchPlan
) -> Floats:
    """Nats a token that steering moves the choice, one head at a time; the shortlist stands above, by its re-test."""
    directions = site_directions(read_activations(chat, search, "likelihood", head_sites(chat.layout)))
    found = first_stages(ChoiceScorer(chat, "likelihood"), directions, search, retest, plan)
    scores = np.full((chat.layout.n_blocks, chat.layout.n_heads), np.nan)
    for site, effect in found.singles.items():
        scores[site.layer, site.head] = effect.value
    top = float(np.nanmax(scores))
    ranked = sorted(found.shortlist, key=lambda site: (not found.holds[site], -found.retest[site].value))
    for place, site in enumerate(ranked):
        scores[site.layer, site.head] = top + len(ranked) - place
    return scores


def probe_map(chat: ChatModel, fit: Sequence[BinaryChoice], test: Sequence[BinaryChoice]) -> Floats:
    """Accuracy on `test` of a linear probe of each head's output, fitted on `fit`."""
    sites = head_sites(chat.layout)
    accuracy = probe_accuracy(
        read_activations(chat, fit, "likelihood", sites), read_activations(chat, test, "likelihood", sites)
    )
    scores = np.full((chat.layout.n_blocks, chat.layout.n_heads), np.nan)
    for site, value in accuracy.items():
        scores[site.layer, site.head] = value
    return scores


def ablation_map(chat: ChatModel, rows: Sequence[BinaryChoice]) -> Floats:
    """Mean over questions of the fall of the behaviour's margin (nats a token) without each head's output."""
    sites = head_sites(chat.layout)
    fall = np.zeros((chat.layout.n_blocks, chat.layout.n_heads))
    # Differences of tenths of a nat and more are looked for: bfloat16 will do, and is several times as fast.
    quick = torch.autocast(chat.device.type, torch.bfloat16)
    with torch.inference_mode(), quick, switch(chat.layout, Ablation("scaling", 0.0)) as on:
        for row in rows:
            prompt = chat.token_ids(render_choice(chat, row, "likelihood"))
            answers = [chat.token_ids(row.text(misaligned=bad)) for bad in (False, True)]
            on.off.clear()
            plain = np.subtract(*(_mean_log_probability(chat, prompt, ids, 1)[0] for ids in reversed(answers)))
            for start in range(0, len(sites), _ROWS):
                group = sites[start : start + _ROWS]
                on.rows([[head] for head in group])
                aligned, behaving = (_mean_log_probability(chat, prompt, ids, len(group)) for ids in answers)
                for head, margin in zip(group, behaving - aligned, strict=True):
                    fall[head.layer, head.head] += (plain - margin) / len(rows)
    return fall


def _mean_log_probability(chat: ChatModel, prompt: list[int], answer: list[int], rows: int) -> Floats:
    """Of an answer, (rows,): all rows are the same, what is ablated differs."""
    ids = torch.tensor([[*prompt, *answer[:-1]]], device=chat.device).expand(rows, -1)
    logits = chat.model(input_ids=ids, use_cache=False, logits_to_keep=len(answer)).logits.float()
    gold = torch.tensor(answer, device=chat.device).expand(rows, -1)
    chosen = logits.gather(2, gold.unsqueeze(2)).squeeze(2)
    values: Floats = (chosen - logits.logsumexp(2)).mean(1).double().cpu().numpy()
    return values
