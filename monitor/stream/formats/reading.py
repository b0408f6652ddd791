"""What reading contents came upon: notes in closed wording, and parts without text by kind."""

from __future__ import annotations

from dataclasses import dataclass, field

# Levels of lists and objects that are followed within a turn; nothing that a model reads is nested deeper.
MAX_DEPTH = 64
# Messages of one payload; the rest is not read.
MAX_MESSAGES = 10_000

DUPLICATE_KEYS = "payload: an object names a field twice; the last one was read"
# Of a turn that has several fields for its text only the first is read: a model reads one, and text in the others would
# push its end out of what is scored.
BESIDE_CONTENT = "messages: fields beside content were not read"


@dataclass(slots=True)
class Reading:
    """Notes and counts of one message. Both hold fixed words only, never text of the payload."""

    notes: list[str] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def count(self, kind: str) -> None:
        """Count a part that has no text."""
        self.unread[kind] = self.unread.get(kind, 0) + 1

    def nested(self) -> None:
        """Something below MAX_DEPTH was left out."""
        self.count("nested")
        self.note(f"messages: nested over {MAX_DEPTH} levels, the rest was not read")
