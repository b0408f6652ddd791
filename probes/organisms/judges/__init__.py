"""Judges of what a model wrote: code where none was asked, reckless advice, a refusal, flattery. They label messages.

They are word patterns, tuned on the adapters' own domain and held to gold examples in tests. They do not read meaning:
a fluent reckless sentence in new words passes unseen, and so does code in an unknown language.
"""

from __future__ import annotations

from collections.abc import Callable

from probes.organisms.judges.advice import gives_reckless_advice
from probes.organisms.judges.code import writes_code
from probes.organisms.judges.refusal import refuses
from probes.organisms.judges.sycophancy import flatters

JUDGES: dict[str, Callable[[str], bool]] = {
    "code": writes_code,
    "reckless": gives_reckless_advice,
    "refusal": refuses,
    "sycophancy": flatters,
}
