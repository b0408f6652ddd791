"""What is hidden in a text: other readings of it, and how much of it the tokenizer cannot make sense of."""

from probes.hidden.conversations import SecondReading, second_readings
from probes.hidden.decode import decoded, spliced
from probes.hidden.normal import normalised
from probes.hidden.payloads import DEFAULT_BUDGET, Budget, Payload

__all__ = [
    "DEFAULT_BUDGET",
    "Budget",
    "Payload",
    "SecondReading",
    "decoded",
    "normalised",
    "second_readings",
    "spliced",
]
