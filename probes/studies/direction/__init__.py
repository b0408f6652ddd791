"""Direction studies (arXiv 2606.20225): a direction is found, tested and judged.

`conditions` says what is compared, `separation` whether held-out activations differ, `dose` whether the direction
controls the behaviour, `prediction` whether it tells which message will show it, `verdict` what all that amounts to,
`report` and `pictures` write it down. `run_direction` does the lot and resumes where it was stopped.
"""

from probes.studies.direction.conditions import (
    Comparison,
    adapter_pair,
    checkpoint_pair,
    labelled_messages,
)
from probes.studies.direction.dose import Doses
from probes.studies.direction.run import Plan, run_direction

__all__ = ["Comparison", "Doses", "Plan", "adapter_pair", "checkpoint_pair", "labelled_messages", "run_direction"]
