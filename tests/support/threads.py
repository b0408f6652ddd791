"""Torch on one thread: tiny matrices gain nothing from a second one, and wait for it on a busy machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread(*, unless: bool = False) -> Iterator[None]:
    """One thread until the block ends; with `unless` as many as before, as a real model wants them."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if unless else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
