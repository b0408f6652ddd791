"""What is hidden in a text: other readings of it, and how much of it the tokenizer cannot make sense of."""

from probes.hidden.conversations import Hidden, SecondReading, look, second_readings
from probes.hidden.decode import decoded, spliced
from probes.hidden.normal import normalised
from probes.hidden.payloads import DEFAULT_BUDGET, Budget, Payload
from probes.hidden.unreadable import UNREADABLE, Tokens

__all__ = [
    "DEFAULT_BUDGET",
    "UNREADABLE",
    "Budget",
    "Hidden",
    "Payload",
    "SecondReading",
    "Tokens",
    "decoded",
    "look",
    "normalised",
    "second_readings",
    "spliced",
]
