"""The fit, select and test split: a hash of a row's group decides.

Contract: `split_of(group, seed)` is a function of the group's name alone, so that rows of one group never straddle
splits and what a probe was tested on can be kept from whatever trains a model.
"""

from __future__ import annotations

from probes.hashing import unit_interval

# Each split and where it ends on [0, 1): fit 50 %, select 20 %, test 30 %.
SPLITS = (("fit", 0.5), ("select", 0.7), ("test", 1.0))


def split_of(group: str, seed: int = 0) -> str:
    """fit, select or test, by a hash of the group."""
    at = unit_interval(f"{seed}:{group}")
    return next(name for name, upper in SPLITS if at < upper)
