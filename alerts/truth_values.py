"""Truth values and numbers are not taken for one another in settings.

Contract: `check_truth_value(value, annotation)` gives the value of a field back, or raises ValueError for true or false
where the field is a number, and for a number where it is true or false. Texts are left to the field.
"""

from __future__ import annotations

from typing import Any, get_args


def check_truth_value(value: Any, annotation: Any) -> Any:
    """See the module; `annotation` is the field's, which may be a union with None."""
    kinds = {annotation, *get_args(annotation)}
    if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
        raise ValueError("must be a number, not true or false")
    if isinstance(value, int | float) and not isinstance(value, bool) and bool in kinds and not kinds & {int, float}:
        raise ValueError("must be true or false")
    return value
