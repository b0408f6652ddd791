"""Pictures, sound, films and files among the parts of a turn.

Contract: what has no text leaves a marker and a count. A file is read where its text is inline, whatever its media type
says: as it is, as base64, as a data URI. Base64 that is no text is never text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monitor.stream.formats import inner
from monitor.stream.formats.turning import Turning

Reader = Callable[[Turning, Any, int], None]

_MIMES = ("media_type", "mime_type", "mimeType", "mime", "mediaType")


def read_media(kind: str, turn: Turning, part: dict[str, Any], depth: int, read: Reader) -> None:
    """A marker; and what stands beside a picture: captions and the like, nothing hides there."""
    turn.marker(kind)
    within = [part, *(each for each in part.values() if isinstance(each, dict))]
    for each in within:
        for key in ("text", "title", "context", "caption", "alt_text", "transcript", "content"):
            value = each.get(key)
            if isinstance(value, str) and not inner.is_blob(value):
                if key != "content" or any(character.isspace() for character in value):
                    turn.text(value)
            elif isinstance(value, list):
                read(turn, value, depth + 1)


def read_file(turn: Turning, part: dict[str, Any], depth: int, read: Reader) -> None:
    """A file: its text where it is given inline, whatever it is called; else a marker."""
    holders = [part]
    for key in ("file", "source", "document", "inlineData", "inline_data", "data"):
        value = part.get(key)
        if isinstance(value, dict):
            holders.append(value)
    mime = next((each[key] for each in holders for key in _MIMES if isinstance(each.get(key), str)), "")
    modality = str(part.get("modality") or mime).split("/")[0]
    for each in holders:
        for key in ("filename", "title", "context", "name"):
            if isinstance(each.get(key), str):
                turn.text(each[key])
    before = len(turn.texts)
    kind = modality if modality in ("image", "audio", "video") and "svg" not in mime else "file"
    for each in holders:
        for key in ("text", "content", "data", "file_data", "fileData", "bytes"):
            value = each.get(key)
            if isinstance(value, str) and key != "text" and each.get("type") != "text":
                # Whatever the media type says: two of them may contradict each other.
                plain = each.get("type") == "content" and not inner.is_blob(value)
                inline = value if plain else inner.inline_text(value)
                if inline is not None:
                    turn.text(inline)
            elif isinstance(value, str | list) or (isinstance(value, dict) and key == "content"):
                read(turn, value, depth + 1)
    if len(turn.texts) == before:
        turn.marker(kind)
