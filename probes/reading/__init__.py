"""How a message is read, and one score a probe from all its readings: the same for the worker and offline."""

from probes.reading.conversation import Conversation
from probes.reading.score import read_values, score_conversations

__all__ = ["Conversation", "read_values", "score_conversations"]
