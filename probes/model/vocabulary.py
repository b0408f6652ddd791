"""Tokens that a tokenizer has and its model has no row for, such as the image token of Gemma 3 in its models of text.

Contract: after `hold_within(model, tokenizer, name)` such an id is read as the tokenizer's unknown token, wherever ids
go in: whoever writes that token into a message does not get by unread, as an error would let them (on an accelerator an
index that is out of range even ends the process). The number of tokens stays. That is for tokens that were added: where
words of the vocabulary itself have no row, the tokenizer is another model's, and ModelError says so.
"""

from __future__ import annotations

from typing import Any

import torch

from probes.errors import ModelError


def hold_within(model: Any, tokenizer: Any, name: str) -> None:
    """Changes nothing where the model has a row for each token."""
    embedding = model.get_input_embeddings()
    rows = int(embedding.weight.shape[0])
    beyond = {number for number in tokenizer.get_vocab().values() if number >= rows}
    if not beyond:
        return
    words = beyond - set(tokenizer.get_added_vocab().values())
    if words:
        raise ModelError(
            f"model: the tokenizer of {name} has {len(words)} tokens for which the model has no embedding ({rows} "
            "rows); give the tokenizer that belongs to the checkpoint"
        )
    unknown = unknown_id(tokenizer, rows)

    def within(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        ids, *others = inputs
        return (torch.where(ids < rows, ids, unknown), *others)

    embedding.register_forward_pre_hook(within)


def unknown_id(tokenizer: Any, rows: int) -> int:
    """What stands for a token that the model has no row for."""
    known = (i for i in (tokenizer.unk_token_id, tokenizer.pad_token_id) if i is not None and i < rows)
    return next(known, 0)
