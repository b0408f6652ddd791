"""How a message is read, and one score a probe from all its readings: the same for the worker and offline."""

from probes.reading.score import Conversation, score_conversations

__all__ = ["Conversation", "score_conversations"]
