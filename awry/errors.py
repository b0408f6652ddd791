"""The base of every error that awry raises on purpose. Imports nothing of awry, so that every package may import it."""


class AwryError(Exception):
    """What went wrong and what to do about it, in one line that may be shown: no prompt text, no secret."""
